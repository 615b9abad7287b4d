"""Parametric faces whose truth is known: identity, attributes, regions and landmarks of every picture.

A face is drawn from numbers: an identity (shapes and colours that a person keeps) and attributes (pose, expression,
light, glasses, background: what changes from picture to picture). Everything is seeded and batched, so that training
and measurements need no data set.
"""

from .draw import DrawnFaces, draw
from .parameters import (
    ATTRIBUTES,
    IDENTITY,
    Attributes,
    IdentityParameters,
    Parameter,
    identity_distance,
    sample_attributes,
    sample_identities,
)
from .regions import REGIONS

__all__ = [
    "ATTRIBUTES",
    "IDENTITY",
    "REGIONS",
    "Attributes",
    "DrawnFaces",
    "IdentityParameters",
    "Parameter",
    "draw",
    "identity_distance",
    "sample_attributes",
    "sample_identities",
]
