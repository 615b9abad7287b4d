"""The layout of UnAvgLip's training checkpoints: which parts there are, and what their shapes tell.

Facts: the training code (pigmeetsomebody/UnAvgLip); its authors published no weights. A checkpoint is what
``accelerate`` saves: ``image_proj_model.*``, ``adapter_modules.{i}.*`` and the whole UNet, ``unet.*``, in which the
adapter's tensors stand again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...checkpoint import CheckpointHeader

PROJECTION = "image_proj_model."
ATTENTION = "adapter_modules."
UNET = "unet."
PREFIXES = (PROJECTION, ATTENTION, UNET)
CONTEXT = 384
EMBEDDING = 512
LAYERS = 16
HEAD_DIM = 64
# The decoder layers' heads are no tensor: the code names 20, which 384 is not divisible by; its sibling file hints at
# one head for 64 channels.
DECODER_HEADS = CONTEXT // HEAD_DIM
RESAMPLER, PERCEIVER = "resampler", "perceiver"
VARIANTS = (RESAMPLER, PERCEIVER)


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file tell.

    Attributes:
        variant: `RESAMPLER` (resampler.py) or `PERCEIVER` (identity_perceiver.py, repaired).
        tokens: number of face tokens.
        depth: layers of the projection.
        heads: heads of its attention.
        feed_forward: inner channels of its second part.
        rank: of the LoRA.
        widths: channels of each attn2, in file order.
    """

    variant: str
    tokens: int
    depth: int
    heads: int
    feed_forward: int
    rank: int
    widths: tuple[int, ...]


def sizes_in(header: CheckpointHeader) -> Sizes | str:
    """The sizes of a file, or the reason (a clause) why it is no UnAvgLip file."""
    reason = _refusal(header)
    if reason is not None:
        return reason
    variant = PERCEIVER if f"{PROJECTION}layers.0.1.linear1.weight" in header.tensors else RESAMPLER
    second = "linear1" if variant == PERCEIVER else "1"
    shapes = {
        "tokens": _shape(header, f"{PROJECTION}latents", 3),
        "queries": _shape(header, f"{PROJECTION}layers.0.0.to_q.weight", 2),
        "second": _shape(header, f"{PROJECTION}layers.0.1.{second}.weight", 2),
        "lora": _shape(header, f"{ATTENTION}0.to_q_lora.down.weight", 2),
    }
    missing = [name for name, shape in shapes.items() if not shape]
    if missing:
        return f"parts of UnAvgLip without its {', '.join(missing)}"
    depth = {name.removeprefix(f"{PROJECTION}layers.").split(".")[0] for name in header.tensors if "layers." in name}
    return Sizes(
        variant=variant,
        tokens=shapes["tokens"][1],
        depth=len({name for name in depth if name.isdigit()}),
        heads=shapes["queries"][0] // HEAD_DIM,
        feed_forward=shapes["second"][0],
        rank=shapes["lora"][0],
        widths=tuple(_shape(header, f"{ATTENTION}{2 * layer + 1}.to_k_ip.weight", 2)[0] for layer in range(LAYERS)),
    )


def _refusal(header: CheckpointHeader) -> str | None:
    if not header.with_prefix(PROJECTION) or not header.with_prefix(ATTENTION):
        return "no pair of parts image_proj_model and adapter_modules (UnAvgLip)"
    maps = [_shape(header, f"{ATTENTION}{2 * layer + 1}.to_k_ip.weight", 2) for layer in range(LAYERS)]
    if not all(maps):
        return f"face keys (to_k_ip) in {sum(map(bool, maps))} of {LAYERS} layers"
    if {shape[1] for shape in maps} != {CONTEXT}:
        return f"face keys {maps[0][1]} wide; UnAvgLip's are {CONTEXT}, as MuseTalk's sound is"
    inputs = header.shape(f"{PROJECTION}proj_in.weight")
    if inputs != (CONTEXT, EMBEDDING):
        return f"a projection of shape {inputs}; UnAvgLip's is ({CONTEXT}, {EMBEDDING})"
    others = {name.split(".")[0] for name in header.tensors if not name.startswith(PREFIXES)}
    return f"further parts ({', '.join(sorted(others)[:3])})" if others else None


def _shape(header: CheckpointHeader, name: str, dimensions: int) -> tuple[int, ...]:
    shape = header.shape(name)
    return shape if shape is not None and len(shape) == dimensions else ()
