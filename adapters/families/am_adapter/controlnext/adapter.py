"""A loaded ControlNeXt file."""

from __future__ import annotations

from ....report import DetectionReport
from ..adapter import ExemplarPart
from .arch import ControlNeXt


class ControlNeXtAdapter(ExemplarPart):
    """ControlNeXt, for `inject.controlnext`.

    Args:
        report, digest: see `ExemplarPart`.
        network: the network.
    """

    network: ControlNeXt

    def __init__(self, report: DetectionReport, digest: str, network: ControlNeXt) -> None:
        super().__init__(report, digest)
        self.network = network
