"""A loaded DreamID-V file: a whole Wan model, and beside it the pose branch where the file has one."""

from __future__ import annotations

from torch import Tensor, nn

from ...checkpoint import CheckpointHeader, load_tensors
from ...errors import EncoderMismatch
from ...identity import Identity
from ...reference import ReferenceAdapter
from ...report import DetectionReport
from .arch import PoseNetwork
from .layout import TEXT, Sizes


class DreamIDVAdapter(ReferenceAdapter):
    """Either published file.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the pose branch, or None for the faster file.
        sizes: of the model.
        base_header: the file reduced to the Wan model's own tensors.
    """

    base = "wan2.1"
    context_dim = TEXT
    apply_node = "Condition DreamID-V"

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: PoseNetwork | None,
        sizes: Sizes,
        base_header: CheckpointHeader,
    ) -> None:
        self.report = report
        self.digest = digest
        self.pose = network
        self.network: nn.Module = (network or nn.Module()).eval().requires_grad_(False)
        self.sizes = sizes
        self._base_header = base_header

    def base_tensors(self) -> dict[str, Tensor]:
        """Read the Wan model's weights; nothing of them is kept here.

        Raises:
            BadCheckpoint: the file changed since it was recognised.
        """
        return load_tensors(self._base_header)

    def refusal(self, identity: Identity) -> EncoderMismatch:
        """The error for an identity that was connected to this adapter."""
        return EncoderMismatch(
            self.report.title,
            expected="a photo of the person",
            found=f"an identity of the encoder {identity.encoder}",
            cure="connect the photo to 'Swap Clip (DreamID-V)' or 'Prepare Clip for DreamID-V'",
        )
