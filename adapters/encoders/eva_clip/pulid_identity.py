"""An identity for PuLID: ArcFace's embedding and EVA-CLIP's features of the same faces, in one."""

from __future__ import annotations

from dataclasses import replace

from ...errors import EncoderMismatch, IdentityMismatch
from ...families.pulid_sdxl.features import ENCODER
from ...identity import EVA_HIDDEN, EVA_POOLED, Identity
from .family import ENCODER_ID


def check_encoders(face: str, eva: str) -> None:
    """Refuse encoders that PuLID was not trained with, before anything is encoded.

    Args:
        face: id of the encoder that gives the embedding.
        eva: id of the encoder that gives the picture features.

    Raises:
        EncoderMismatch: naming both.
    """
    if (face, eva) != (ENCODER, ENCODER_ID):
        raise EncoderMismatch(
            "encode identity for PuLID",
            expected=f"the encoder {ENCODER} and, as eva_clip, {ENCODER_ID}",
            found=f"{face} and {eva}",
            cure="load ArcFace of antelopev2 and EVA02_CLIP_L_336_psz14_s6B.pt with 'Load Face Encoder'",
        )


def with_eva_features(identity: Identity, eva: Identity) -> Identity:
    """Add the features of ``eva`` to ``identity``; both are of the same N faces, in the same order.

    Raises:
        IdentityMismatch: other faces, or an identity without EVA-CLIP's features.
    """
    if EVA_HIDDEN not in eva.features or len(eva) != len(identity) or eva.photos != identity.photos:
        raise IdentityMismatch(
            "identity for PuLID",
            expected=f"EVA-CLIP features of the same {len(identity)} faces",
            found=f"{', '.join(sorted(eva.features))} of {len(eva)} faces by {eva.encoder}",
            cure="encode both from the same photos and faces",
        )
    added = {name: eva.features[name] for name in (EVA_POOLED, EVA_HIDDEN)}
    notes = tuple(dict.fromkeys((*identity.notes, *eva.notes)))
    return replace(identity, features={**identity.features, **added}, masked=eva.masked, notes=notes)
