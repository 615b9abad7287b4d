"""The MTCNN cascade over a batch of pictures: pyramid and proposals, refinement, output with landmarks.

Sizes, rounding and suppression follow facenet-pytorch 2.6 (MIT), whose numbers are the reference. Its code crops
candidates one by one; here the crops of all pictures are averaged at once out of a table of summed pixels, which is
exact for 8-bit values and makes the result independent of how pictures are batched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.boxes import Overlap, nms
from ....faces.types import Faces
from ...family import Licence
from ..pictures import chunks, home, pixel_values, shrunk
from .arch import Mtcnn

LICENCE = Licence("MIT", "MIT", True, "weights of the mtcnn package, converted from the authors' models")
LONGEST_SIDE = 2048
CROPS_AT_ONCE = 512


@dataclass
class _Candidates:
    """N candidates of all pictures of a chunk, on the CPU; image (N,), boxes (N, 4), scores (N,), shifts (N, 4)."""

    image: Tensor
    boxes: Tensor
    scores: Tensor
    shifts: Tensor

    def __getitem__(self, index: Tensor) -> _Candidates:
        return _Candidates(self.image[index], self.boxes[index], self.scores[index], self.shifts[index])

    def suppressed(self, threshold: float, overlap: Overlap = "union", inclusive: bool = False) -> _Candidates:
        """Suppression within each picture; best first inside a picture."""
        kept = [torch.zeros(0, dtype=torch.long)]
        for number in self.image.unique().tolist():
            own = (self.image == number).nonzero()[:, 0]
            kept.append(own[nms(self.boxes[own], self.scores[own], threshold, overlap=overlap, inclusive=inclusive)])
        return self[torch.cat(kept)]


class MtcnnDetector:
    """MTCNN as a ``faces.detect.Detector``.

    Pictures with a longer side above 2048 are shrunk to it first; boxes and points come back in original pixels.

    Args:
        network: the three networks; runs where they are.
        min_face_size: smallest face in pixels (after that shrinking).
        thresholds: least probability of a face in the three networks.
        factor: ratio of one pyramid level to the next.
    """

    name = "mtcnn"
    title = "MTCNN (Zhang et al. 2016)"
    default_score = 0.9
    licence = LICENCE

    def __init__(
        self,
        network: Mtcnn,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ) -> None:
        self.network = network
        self.min_face_size = min_face_size
        self.thresholds = thresholds
        self.factor = factor

    @torch.inference_mode()
    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Faces of each of the (B, H, W, 3) pictures 0..1, of one size, whose probability is at least ``score``."""
        found: list[Faces] = []
        for part in chunks(images):
            pixels, x_factor, y_factor = shrunk(pixel_values(part, home(self.network)[0]), LONGEST_SIDE)
            found.extend(_scaled(faces, x_factor, y_factor) for faces in self._cascade(pixels, score))
        return found

    def _cascade(self, pixels: Tensor, score: float) -> list[Faces]:
        candidates = self._propose(pixels)
        table = _summed(pixels)
        candidates = self._refine(table, candidates)
        return self._output(table, candidates, score)

    def _propose(self, pixels: Tensor) -> _Candidates:
        """PNet over the pyramid: square boxes, shifted by its regression."""
        levels = [self._propose_at(pixels, scale) for scale in self._scales(*pixels.shape[2:])]
        every = _joined(levels).suppressed(0.7)
        size = (every.boxes[:, 2:] - every.boxes[:, :2]).repeat(1, 2)
        every.boxes = _squared(every.boxes + every.shifts * size)
        return every

    def _scales(self, height: int, width: int) -> list[float]:
        scale = 12.0 / self.min_face_size
        side = min(height, width) * scale
        scales = []
        while side >= 12:
            scales.append(scale)
            scale *= self.factor
            side *= self.factor
        return scales

    def _propose_at(self, pixels: Tensor, scale: float) -> _Candidates:
        size = (int(pixels.shape[2] * scale + 1), int(pixels.shape[3] * scale + 1))
        level = functional.interpolate(pixels, size=size, mode="area")
        shifts, probability = self.network.pnet(_normalised(level, self.network))
        image, row, column = (probability >= self.thresholds[0]).nonzero().unbind(1)
        cells = torch.stack([column, row, column, row], dim=1).float()
        boxes = torch.floor((2 * cells + torch.tensor([1.0, 1.0, 12.0, 12.0], device=cells.device)) / scale)
        chosen = (probability[image, row, column], shifts[image, :, row, column])
        scores, own_shifts = (value.float().cpu() for value in chosen)
        return _Candidates(image.cpu(), boxes.cpu(), scores, own_shifts).suppressed(0.5)

    def _refine(self, table: Tensor, candidates: _Candidates) -> _Candidates:
        """RNet on 24x24 crops."""
        candidates, crops_of = _inside(table, candidates)
        shifts, scores = _run(self.network.rnet, table, candidates.image, crops_of, 24, (4, 0))
        passed = _Candidates(candidates.image, candidates.boxes, scores, shifts)[scores > self.thresholds[1]]
        passed = passed.suppressed(0.7)
        passed.boxes = _squared(_regressed(passed))
        return passed

    def _output(self, table: Tensor, candidates: _Candidates, score: float) -> list[Faces]:
        """ONet on 48x48 crops: final boxes, probabilities and the five points."""
        candidates, crops_of = _inside(table, candidates)
        shifts, points, scores = _run(self.network.onet, table, candidates.image, crops_of, 48, (4, 10, 0))
        size = candidates.boxes[:, 2:] - candidates.boxes[:, :2] + 1
        landmarks = points.view(-1, 2, 5).transpose(1, 2) * size[:, None] + candidates.boxes[:, None, :2] - 1
        passed = _Candidates(candidates.image, candidates.boxes, scores, torch.cat([shifts, landmarks.flatten(1)], 1))
        passed = passed[scores > self.thresholds[2]]
        passed.boxes = _regressed(passed)
        passed = passed.suppressed(0.7, "min", inclusive=True)
        passed = passed[passed.scores >= score]
        return [_faces_of(passed, number) for number in range(table.shape[0])]


def _joined(levels: list[_Candidates]) -> _Candidates:
    none = _Candidates(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 4))
    every = [none, *levels]
    return _Candidates(
        torch.cat([level.image for level in every]),
        torch.cat([level.boxes for level in every]),
        torch.cat([level.scores for level in every]),
        torch.cat([level.shifts for level in every]),
    )


def _normalised(pixels: Tensor, network: torch.nn.Module) -> Tensor:
    return ((pixels - 127.5) / 128).to(home(network)[1])


def _squared(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) grown to squares around their centres."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.amax(dim=1, keepdim=True)
    low = boxes[:, :2] + size * 0.5 - side * 0.5
    return torch.cat([low, low + side], dim=1)


def _regressed(candidates: _Candidates) -> Tensor:
    """Boxes moved by the regression, in parts of their size counted in pixels."""
    size = (candidates.boxes[:, 2:] - candidates.boxes[:, :2] + 1).repeat(1, 2)
    return candidates.boxes + candidates.shifts[:, :4] * size


def _inside(table: Tensor, candidates: _Candidates) -> tuple[_Candidates, Tensor]:
    """Candidates with at least one pixel in the picture, and what is cut out for each.

    Returns:
        The candidates and (N, 4) int64 ``x y end_x end_y``, ends exclusive: boxes truncated to whole pixels, counted
        from one as in the original, and clipped to the picture (not padded, as facenet-pytorch does).
    """
    height, width = table.shape[1] - 1, table.shape[2] - 1
    low_x, low_y, end_x, end_y = candidates.boxes.trunc().long().unbind(1)
    cut = torch.stack(
        [low_x.clamp(min=1) - 1, low_y.clamp(min=1) - 1, end_x.clamp(max=width), end_y.clamp(max=height)], dim=1
    )
    visible = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    return candidates[visible], cut[visible]


def _summed(pixels: Tensor) -> Tensor:
    """Summed-area table (B, H + 1, W + 1, 3) int32 of whole-number pixels (exact up to 2048 x 2048 x 255 < 2**31)."""
    rows = pixels.to(torch.int32).cumsum(2, dtype=torch.int32)
    sums = rows.cumsum(3, dtype=torch.int32)
    return functional.pad(sums, (1, 0, 1, 0)).permute(0, 2, 3, 1).contiguous()


def _crops(table: Tensor, image: Tensor, cut: Tensor, size: int) -> Tensor:
    """Cut (N, 4) rectangles out of the pictures and average them to (N, 3, size, size) (adaptive average pooling)."""
    steps = torch.arange(size, device=table.device)
    starts, ends = [], []
    for low, high in ((cut[:, 0], cut[:, 2]), (cut[:, 1], cut[:, 3])):
        span = (high - low)[:, None]
        starts.append(low[:, None] + (steps * span) // size)
        ends.append(low[:, None] + ((steps + 1) * span + size - 1) // size)
    left, top = starts[0][:, None, :], starts[1][:, :, None]
    right, bottom = ends[0][:, None, :], ends[1][:, :, None]
    number = image[:, None, None]
    total = table[number, bottom, right] - table[number, top, right] - table[number, bottom, left]
    total = total + table[number, top, left]
    area = ((right - left) * (bottom - top))[..., None]
    return (total.float() / area.float()).permute(0, 3, 1, 2)


def _run(
    network: torch.nn.Module, table: Tensor, image: Tensor, cut: Tensor, size: int, widths: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Run a network on the crops of all candidates, in chunks; float32 outputs on the CPU, one per width (0 = (N,))."""
    parts = []
    for own_image, own_cut in zip(image.split(CROPS_AT_ONCE), cut.split(CROPS_AT_ONCE), strict=True):
        if len(own_image):
            crops = _crops(table, own_image.to(table.device), own_cut.to(table.device), size)
            parts.append([value.float().cpu() for value in network(_normalised(crops, network))])
    if not parts:
        return tuple(torch.zeros((0, width) if width else (0,)) for width in widths)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _faces_of(candidates: _Candidates, number: int) -> Faces:
    own = candidates[(candidates.image == number).nonzero()[:, 0]]
    return Faces(own.boxes, own.shifts[:, 4:].reshape(-1, 5, 2), own.scores)


def _scaled(faces: Faces, x_factor: float, y_factor: float) -> Faces:
    factor = torch.tensor([x_factor, y_factor])
    return Faces(faces.boxes * factor.repeat(2), faces.landmarks5 * factor, faces.scores)
