"""A recognised MuseTalk file. Its tensors become a MODEL of the host's own UNet, so nothing is computed here."""

from __future__ import annotations

from torch import Tensor, nn

from ...adapter import Adapter, IdentityTokens, TokenOptions
from ...checkpoint import CheckpointHeader, load_tensors
from ...errors import EncoderMismatch
from ...identity import Identity
from ...report import DetectionReport
from .layout import CONTEXT

V1, V15 = "v1", "v15"
VERSIONS = (V1, V15)


class MuseTalkFile(Adapter):
    """The UNet of MuseTalk, not read yet: ``tensors`` reads it.

    Args:
        report: what was recognised.
        header: of the file.
        widths: channels of the four levels.
    """

    apply_node = "'Load MuseTalk'"

    def __init__(self, report: DetectionReport, header: CheckpointHeader, widths: tuple[int, ...]) -> None:
        self.report = report
        self.digest = header.digest
        self.network = nn.Module()
        self.base = report.base
        self.context_dim = CONTEXT
        self.widths = widths
        self._header = header

    @property
    def version(self) -> str:
        """``"v1"`` or ``"v15"``."""
        return self.report.variant or V15

    @property
    def name(self) -> str:
        """The file's name."""
        return self._header.path.name

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under its published name, on the CPU, in the file's dtype. Raises BadCheckpoint."""
        return load_tensors(self._header)

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse. Raises EncoderMismatch, which names the nodes to use instead."""
        raise EncoderMismatch(
            self.report.title,
            expected="frames and sound",
            found=f"an identity of the encoder {identity.encoder}",
            cure="load the file with 'Load MuseTalk', and give it an identity with 'Apply Lip-Sync Identity'",
        )
