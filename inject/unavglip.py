"""UnAvgLip on a MuseTalk MODEL: face tokens beside the sound in every attn2, and its LoRA in the weights.

``out = A(q, k_sound, v_sound) + strength * A(q, K_id, V_id)``; the LoRA acts whatever that strength is, as officially:
at strength 0 it still changes the picture, and only with both strengths 0 is the model MuseTalk's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..adapters.adapter import TokenOptions
from ..adapters.errors import EncoderMismatch
from ..adapters.families.unavglip.adapter import UnAvgLipAdapter
from ..adapters.identity import Identity
from .apply import ApplyOptions, apply_identity
from .attention import IdentityAttention
from .loaded import LoadedAdapter
from .musetalk import musetalk_facts

MARK = "likeness_lip_identity"


@dataclass(frozen=True)
class LipIdentityOptions:
    """What a user sets.

    Attributes:
        strength: the official ``guide_scale``: 0.5 on the command line, 0.25 in the evaluation.
        lora_strength: of the LoRA; official 1, whatever ``strength`` is.
    """

    strength: float = 0.5
    lora_strength: float = 1.0


def apply_lip_identity(model: Any, loaded: LoadedAdapter, identity: Identity, options: LipIdentityOptions) -> Any:
    """Return a clone of a MuseTalk MODEL that keeps the person; the MODEL that came in is left as it was.

    Raises:
        BaseModelMismatch: no MuseTalk model, or one of other widths.
        EncoderMismatch: another adapter, or an identity of another encoder.
        NumberOfFaces: a number of faces that the repaired perceiver cannot take.
    """
    musetalk_facts(model, "Apply Lip-Sync Identity")
    if not isinstance(loaded.adapter, UnAvgLipAdapter):
        raise EncoderMismatch(
            "Apply Lip-Sync Identity",
            expected="a UnAvgLip adapter",
            found=loaded.adapter.report.title,
            cure="load an adapter trained with UnAvgLip's code with 'Load Face Adapter'",
        )
    settings = ApplyOptions(
        strength=options.strength, lora_strength=options.lora_strength, tokens=TokenOptions(negative=False)
    )
    patched = apply_identity(model, loaded, identity, settings)
    acts = options.strength != 0.0 or options.lora_strength != 0.0
    if acts:
        patched.model_options["transformer_options"][MARK] = True
    return patched


def keeps_identity(model: Any) -> bool:
    """Whether an identity acts on a MuseTalk MODEL, put there by whichever node."""
    options = model.model_options.get("transformer_options", {})
    patches = options.get("patches_replace", {}).get("attn2", {}).values()
    terms = [term for patch in patches if isinstance(patch, IdentityAttention) for term in patch.terms]
    return bool(options.get(MARK)) or any(term.strength != 0.0 for term in terms)
