"""A loaded DreamFit file: what it changes in the base model while the reference picture passes through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ...adapter import LowRank
from ...checkpoint import CheckpointHeader, load_tensors
from ...reference import ReferenceAdapter
from ...report import DetectionReport
from .arch import ReferenceKeysValues, ReferenceProjections


@dataclass(frozen=True)
class WeightPart:
    """A weight of the base model, or a run of its rows.

    Attributes:
        name: of the weight, without the host's prefix.
        start, rows: first row and number of rows; None for the whole weight.
    """

    name: str
    start: int | None = None
    rows: int | None = None


Changes = Mapping[WeightPart, LowRank]


class DreamFitUNet(ReferenceAdapter):
    """The SD1.5 file: LoRA for a whole second UNet (the encoder), and keys and values in ten of its blocks.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the keys and values.
        changes: the LoRA with its factors folded in.
        context_dim: width of the text context.
        base_header: the file reduced to the encoder's base weights, or None where it holds the adapter alone.
        base_names: name inside the UNet by name in the file.
    """

    base = "sd15"
    network: ReferenceProjections

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: ReferenceProjections,
        changes: Changes,
        context_dim: int,
        base_header: CheckpointHeader | None,
        base_names: Mapping[str, str],
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.changes = dict(changes)
        self.context_dim = context_dim
        self._base_header = base_header
        self._base_names = dict(base_names)

    @property
    def has_base(self) -> bool:
        """Whether the file holds the encoder's base UNet too."""
        return self._base_header is not None

    @property
    def layers(self) -> list[ReferenceKeysValues]:
        """The ten layers in the host's order: middle block, then output blocks 3 to 11."""
        return self.network.pairs()

    def base_tensors(self) -> dict[str, Tensor]:
        """Read the encoder's base weights, named as the original SD1.5 code names them; nothing of them is kept here.

        Raises:
            BadCheckpoint: the file changed since it was recognised.
        """
        if self._base_header is None:
            return {}
        return {self._base_names[name]: tensor for name, tensor in load_tensors(self._base_header).items()}


class DreamFitDiT(ReferenceAdapter):
    """A Flux file: LoRA for the image stream of every block, in the pass over the reference only.

    Args:
        report: what was recognised.
        digest: identifies the file.
        changes: the LoRA with its factors folded in.
        double, single: numbers of blocks.
        width: channels of the model.
    """

    base = "flux"

    def __init__(
        self, report: DetectionReport, digest: str, changes: Changes, double: int, single: int, width: int
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = nn.Module()
        self.changes = dict(changes)
        self.double = double
        self.single = single
        self.width = width
        # The text context does not matter here: the LoRA leaves the text stream alone.
        self.context_dim = 0


def reduced(header: CheckpointHeader, names: Mapping[str, str]) -> CheckpointHeader:
    """The header with some of its names only (``names``: any value by canonical name), to load no more than these."""
    return replace(header, raw_names={name: header.raw_names[name] for name in names})
