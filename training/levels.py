"""The levels of LAFR's restoration loss: appearance, identity and structure (Li et al. 2025, arXiv:2505.23462).

The networks that judge are passed in, frozen and differentiable; a level without its network is left out. ONNX networks
give no gradient and cannot serve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..faces.align import align_matrix
from ..faces.warp import compose, warp
from .pairs import Pairs

# Two batches (B, 3, H, W) in 0..1 to distances (B,) or a number, such as LPIPS.
Perceptual = Callable[[Tensor, Tensor], Tensor]
# Crops (B, 3, 112, 112) in -1..1 to embeddings (B, D).
Recognise = Callable[[Tensor], Tensor]
# Pictures (B, 3, H, W) in 0..1 to maps that describe the face's parts.
Structure = Callable[[Tensor], Sequence[Tensor]]

_PIXEL_RAMP = 1000


@dataclass(frozen=True, eq=False)
class FaceLevel:
    """The identity level: a recogniser, and where the faces are.

    Attributes:
        recognise: the network.
        landmarks: (N, 5, 2) in pixels of each clean training picture.
        template: where they lie in a crop, a name of `faces.templates`.
        side: of the crop.
    """

    recognise: Recognise
    landmarks: Tensor
    template: str = "arcface"
    side: int = 112

    def distance(self, restored: Tensor, pairs: Pairs) -> Tensor:
        """Mean of 1 - cosine between restored (B, 3, S, S) and clean faces, both cut by the clean one's landmarks."""
        matrices = self._matrices(pairs)
        crops = [warp(images, matrices, self.side) * 2 - 1 for images in (restored, pairs.clean)]
        found, wanted = self.recognise(crops[0]), self.recognise(crops[1]).detach()
        return (1 - functional.cosine_similarity(found.float(), wanted.float(), dim=1)).mean()

    def _matrices(self, pairs: Pairs) -> Tensor:
        matrices = align_matrix(self.landmarks[list(pairs.numbers)].double(), self.template, self.side)
        side = pairs.clean.shape[-1]
        mirror = matrices.new_tensor([[-1.0, 0.0, side - 1], [0.0, 1.0, 0.0]]).expand_as(matrices)
        return torch.where(pairs.mirrored[:, None, None], compose(matrices, mirror), matrices)


@dataclass(frozen=True, eq=False)
class Levels:
    """Which levels count, and how much.

    Attributes:
        perceptual, face, structure: what judges; None leaves the level out.
        pixel_weight, perceptual_weight, face_weight, structure_weight: factors; the pixels' rises from 0 in the first
            1000 steps, so that the other levels lead.
    """

    perceptual: Perceptual | None = None
    face: FaceLevel | None = None
    structure: Structure | None = None
    pixel_weight: float = 1.0
    perceptual_weight: float = 2.0
    face_weight: float = 0.5
    structure_weight: float = 0.5

    def losses(self, restored: Tensor, pairs: Pairs, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum for restored pictures (B, 3, S, S), and each level's own value."""
        pixel = functional.l1_loss(restored, pairs.clean)
        ramp = min(1.0, (step + 1) / _PIXEL_RAMP) if self._has_others() else 1.0
        found, total = {"pixel": pixel}, ramp * self.pixel_weight * pixel
        if self.perceptual is not None:
            found["perceptual"] = self.perceptual(restored, pairs.clean).mean()
            total = total + self.perceptual_weight * found["perceptual"]
        if self.face is not None:
            found["identity"] = self.face.distance(restored, pairs)
            total = total + self.face_weight * found["identity"]
        if self.structure is not None:
            maps = zip(self.structure(restored), self.structure(pairs.clean), strict=True)
            found["structure"] = torch.stack([functional.l1_loss(one, two.detach()) for one, two in maps]).mean()
            total = total + self.structure_weight * found["structure"]
        return total, found

    def _has_others(self) -> bool:
        return any(one is not None for one in (self.perceptual, self.face, self.structure))
