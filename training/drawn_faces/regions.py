"""The regions of a drawn picture. Every pixel belongs to them in parts that sum to 1."""

from __future__ import annotations

REGIONS = ("background", "body", "face", "hair", "eyes", "mouth", "glasses")
# What counts as the face of a person: everything inside the head's outline.
FACE_REGIONS = ("face", "eyes", "mouth", "glasses")
HEAD_REGIONS = (*FACE_REGIONS, "hair")
