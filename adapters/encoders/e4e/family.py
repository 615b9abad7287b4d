"""Recognises ``e4e_ffhq_encode.pt`` and encodes faces with it; the file's generator is read by `decoder`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ....faces.errors import BadLandmarks
from ....faces.images import as_rgb
from ....faces.resample import to_pixels
from ...adapter import module_device_dtype
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import KeyMismatch
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...identity import W_PLUS
from ..base import FaceEncoder
from .align import SMALLEST_WIDTH, align_face, e4e_input, ffhq_quad, quad_width
from .arch import STYLE_DIM, STYLES, Encoder4Editing

PREFIXES = ("state_dict.encoder.", "encoder.", "")
MEAN = "latent_avg"
NEEDED = ("input_layer.0.weight", "body.23.res_layer.5.fc1.weight", "styles.17.linear.weight", "latlayer2.weight")
UNMASKED = "face with its background: the W+ adapter's second stage was trained on codes of faces on white"
LICENCE = Licence(
    code="MIT",
    weights="non-commercial research (FFHQ, StyleGAN2)",
    commercial=False,
    note="its codes belong to NVIDIA's StyleGAN2, whose weights are for non-commercial use",
)


class E4EEncoder(FaceEncoder):
    """Feature: ``w_plus`` (N, 18, 512), the mean code added. It says how a face looks, not who it is, so there is no
    ``embedding`` to compare persons by.

    Faces are aligned as FFHQ is, without filling what lies outside the picture. Head masks make the background white.

    Args:
        network: the encoder.
        mean: (18, 512) mean code of the generator.
        licence: of code and weights.
        notes: sentences about the file.
    """

    id = "e4e"
    title = "e4e (Encoder4Editing)"
    uses_masks = True
    unmasked_note = UNMASKED
    network: Encoder4Editing

    def __init__(self, network: Encoder4Editing, mean: Tensor, licence: Licence, notes: tuple[str, ...] = ()) -> None:
        self.network = network.eval().requires_grad_(False)
        self.mean = mean.float()
        self.licence = licence
        self.notes = notes

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        inputs = torch.stack(
            [
                e4e_picture(images[number], points, None if masks is None else masks[number])
                for number, points in zip(index, landmarks5, strict=True)
            ]
        )
        device, dtype = module_device_dtype(self.network)
        with torch.no_grad():
            codes = self.network(inputs.to(device, dtype)).float().cpu()
        return {W_PLUS: codes + self.mean}


def e4e_picture(image: Tensor, landmarks5: Tensor, mask: Tensor | None) -> Tensor:
    """The picture (3, 256, 256) in -1..1 that e4e sees of one face.

    Args:
        image: (H, W, 3) RGB, 0..1.
        landmarks5: (5, 2) pixels.
        mask: (H, W) head mask, 0..1, or None. It is warped as the face is and then decided at one half, as the
            authors' parser gives hard masks.

    Raises:
        BadLandmarks: a face narrower than the authors take.
    """
    pixels = to_pixels(as_rgb(image[None])[0]).movedim(-1, 0).cpu()
    quad = ffhq_quad(landmarks5)
    width = quad_width(quad)
    if not math.isfinite(width) or width <= SMALLEST_WIDTH:
        raise BadLandmarks(
            "e4e",
            expected=f"a head more than {SMALLEST_WIDTH} pixels wide",
            found=f"one of {width:.0f}",
            cure="use a larger photo, or enlarge it before detecting the face",
        )
    if mask is None:
        return e4e_input(align_face(pixels, quad), None)
    crop = align_face(torch.cat([pixels, to_pixels(mask)[None].cpu()]), quad)
    return e4e_input(crop[:3], (crop[3] < 128).to(torch.uint8) * 255)


class E4EFamily(Family):
    """A face of 256 pixels as eighteen rows of StyleGAN2 style."""

    id = "e4e"
    kind: Kind = "encoder"
    title = "e4e"
    folder = "face_encoders"
    links = ("https://github.com/omertov/encoder4editing", "https://github.com/csxmli2016/w-plus-adapter")
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        prefix = _prefix(header)
        if prefix is None:
            return f"no {NEEDED[0]} and {NEEDED[2]}"
        shape = header.shape(f"{prefix}styles.17.linear.weight")
        if shape != (STYLE_DIM, STYLE_DIM):
            return f"style heads of shape {shape}"
        return Match(self, None, {"tokens": STYLES})

    def build(self, header: CheckpointHeader, match: Match) -> E4EEncoder:
        prefix = _prefix(header) or ""
        with torch.device("meta"):
            network = Encoder4Editing()
        tensors = load_tensors(header, prefix)
        if prefix == "":
            tensors = {name: value for name, value in tensors.items() if name != MEAN}
        load_strictly(network, tensors, what=header.path.name)
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return E4EEncoder(network, _mean_code(header), self.licence, (note,))


def _prefix(header: CheckpointHeader) -> str | None:
    for prefix in PREFIXES:
        if header.has(*(prefix + name for name in NEEDED)):
            return prefix
    return None


def _mean_code(header: CheckpointHeader) -> Tensor:
    """The mean code (18, 512); files hold it once or for each row."""
    found = header.shape(MEAN)
    if found is not None and found[-1:] == (STYLE_DIM,):
        mean = load_tensors(header, MEAN)[""].reshape(-1, STYLE_DIM)
        if len(mean) in (1, STYLES):
            return mean.expand(STYLES, -1).clone()
    raise KeyMismatch(
        header.path.name,
        expected=f"the mean code {MEAN} ({STYLES}, {STYLE_DIM})",
        found="none" if found is None else f"a shape of {found}",
        cure="use the publisher's whole file e4e_ffhq_encode.pt: codes without the mean are no faces",
    )


FAMILY = E4EFamily()
