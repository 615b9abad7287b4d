"""A loaded matcher file of AM-Adapter."""

from __future__ import annotations

from ...errors import EncoderMismatch
from ...identity import Identity
from ...reference import ReferenceAdapter
from ...report import DetectionReport
from .arch import Matcher

HEADS = 8


class ExemplarPart(ReferenceAdapter):
    """A file that serves an exemplar picture and takes no identity.

    Args:
        report: what was recognised.
        digest: identifies the file.
    """

    base = "sd15"
    context_dim = 768

    def __init__(self, report: DetectionReport, digest: str) -> None:
        self.report, self.digest = report, digest

    def refusal(self, identity: Identity) -> EncoderMismatch:
        """The error for an identity that was connected to this adapter."""
        return EncoderMismatch(
            self.report.title,
            expected="an exemplar picture with its segmentation map",
            found=f"an identity of the encoder {identity.encoder}",
            cure="use 'Invert Exemplar' and 'Apply AM-Adapter'",
        )


class AMMatcher(ExemplarPart):
    """The matcher, for `inject.augmented_attention`.

    Args:
        report, digest: see `ExemplarPart`.
        network: the matcher.
    """

    network: Matcher

    def __init__(self, report: DetectionReport, digest: str, network: Matcher) -> None:
        super().__init__(report, digest)
        self.network = network
