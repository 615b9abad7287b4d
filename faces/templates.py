"""Where the five points of an aligned face lie: one table of the templates that published networks were trained with.

Points are landmarks5 in the order of `Faces.landmarks5`, x to the right, y down, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import LikenessError

Points = tuple[tuple[float, float], ...]


class UnknownTemplate(LikenessError):
    """A template name that is not in the table, or a size its rule does not know."""


@dataclass(frozen=True)
class Template:
    """A mean face in a square of side 1, and where the numbers come from.

    Attributes:
        points: five (x, y) pairs as fractions of the crop's side.
        source: the official file that holds them.
        note: what to know before using it.
    """

    points: Points
    source: str
    note: str = ""


ARCFACE = "arcface"
# deepinsight/insightface, utils/face_align.py (estimate_norm).
ARCFACE_112: Points = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

_FACEFUSION = "facefusion/facefusion, face_helper.py (WARP_TEMPLATES)"


def _divided(points: Points, side: float) -> Points:
    return tuple((x / side, y / side) for x, y in points)


TEMPLATES: dict[str, Template] = {
    "arcface_112_v1": Template(
        (
            (0.35473214, 0.45658929),
            (0.64526786, 0.45658929),
            (0.50000000, 0.61154464),
            (0.37913393, 0.77687500),
            (0.62086607, 0.77687500),
        ),
        _FACEFUSION,
    ),
    "arcface_112_v2": Template(
        (
            (0.34191607, 0.46157411),
            (0.65653393, 0.45983393),
            (0.50022500, 0.64050536),
            (0.37097589, 0.82469196),
            (0.63151696, 0.82325089),
        ),
        _FACEFUSION,
        "the ArcFace face at 112, here for any size",
    ),
    "arcface_128": Template(
        (
            (0.36167656, 0.40387734),
            (0.63696719, 0.40235469),
            (0.50019687, 0.56044219),
            (0.38710391, 0.72160547),
            (0.61507734, 0.72034453),
        ),
        _FACEFUSION,
        "the ArcFace face at 128, here for any size",
    ),
    "dfl_whole_face": Template(
        (
            (0.35342266, 0.39285716),
            (0.62797622, 0.39285716),
            (0.48660713, 0.54017860),
            (0.38839287, 0.68750011),
            (0.59821427, 0.68750011),
        ),
        _FACEFUSION,
    ),
    "ffhq_512": Template(
        (
            (0.37691676, 0.46864664),
            (0.62285697, 0.46912813),
            (0.50123859, 0.61331904),
            (0.39308822, 0.72541100),
            (0.61150205, 0.72490465),
        ),
        _FACEFUSION,
        "the FaceRestoreHelper face as fractions",
    ),
    "mtcnn_512": Template(
        (
            (0.36562865, 0.46733799),
            (0.63305391, 0.46585885),
            (0.50019127, 0.61942959),
            (0.39032951, 0.77598822),
            (0.61178945, 0.77476328),
        ),
        _FACEFUSION,
    ),
    "styleganex_384": Template(
        (
            (0.42353745, 0.52289879),
            (0.57725008, 0.52319972),
            (0.50123859, 0.61331904),
            (0.43364461, 0.68337652),
            (0.57015325, 0.68306005),
        ),
        _FACEFUSION,
    ),
    "face_restore_512": Template(
        _divided(
            (
                (192.98138, 239.94708),
                (318.90277, 240.1936),
                (256.63416, 314.01935),
                (201.26117, 371.41043),
                (313.08905, 371.15118),
            ),
            512,
        ),
        "xinntao/facexlib, utils/face_restoration_helper.py",
    ),
    "fact_112": Template(
        _divided(ARCFACE_112, 112),
        "modelscope/facechain, face_adapter/face_preprocess.py",
        "the ArcFace face; the official file writes it for a width of 96 and adds 8 to x",
    ),
    "reactor_hyperswap_256": Template(
        _divided(((84.87, 105.94), (171.13, 105.94), (128.0, 146.66), (96.95, 188.64), (159.05, 188.64)), 256),
        "Gourieff/ComfyUI-ReActor, HyperSwap crop",
        "kept for comparison only: it fits no mean face and tilts profiles; HyperSwap wants arcface_128",
    ),
}


def template_names() -> tuple[str, ...]:
    """Every name that `template_points` takes."""
    return (ARCFACE, *TEMPLATES)


def template_points(name: str, size: int) -> Tensor:
    """Return the template's landmarks5 (5, 2) float64 in a crop of ``size`` pixels.

    ``"arcface"`` follows insightface's rule of sizes: a multiple of 112 is the ArcFace square enlarged (112, 224, 336,
    896); a multiple of 128 is enlarged by size / 128 with 8 pixels of the 128 square added to x only (128, 256, 512),
    so that the face sits higher. Every other name is proportional to the size.

    Raises:
        UnknownTemplate: the name is not in the table, or ``"arcface"`` has no rule for the size.
    """
    if name == ARCFACE:
        return _arcface_points(size)
    if name not in TEMPLATES:
        raise UnknownTemplate(
            f"template {name!r}",
            expected="one of " + ", ".join(template_names()),
            found="a name that is not in the table",
            cure="choose a name of the table",
        )
    return torch.tensor(TEMPLATES[name].points, dtype=torch.float64) * size


def _arcface_points(size: int) -> Tensor:
    points = torch.tensor(ARCFACE_112, dtype=torch.float64)
    if size > 0 and size % 112 == 0:
        return points * (size / 112)
    if size > 0 and size % 128 == 0:
        return (points + torch.tensor([8.0, 0.0], dtype=torch.float64)) * (size / 128)
    raise UnknownTemplate(
        f"template {ARCFACE!r} at {size} pixels",
        expected="a multiple of 112 or of 128",
        found=str(size),
        cure="take such a size, or arcface_112_v2 or arcface_128, which are defined for every size",
    )
