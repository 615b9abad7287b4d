"""The file of a DreamID model: two UNets, what is added to them, and metadata that say what the tensors mean.

This layout is the project's own, since none is published. UNets have the original names of Stable Diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ...checkpoint import CheckpointHeader
from ...errors import KeyMismatch
from ...own_layouts import OwnMetadata
from ...strict_load import group_by_prefix
from ...unet_shapes import unet_shapes

VERSION = "1"
SWAPNET, FACENET = "swapnet.", "facenet."
PARTS = ("image_proj.", "ip_adapter.", "pose_guider.")
PREDICTIONS = ("eps", "v")
PROMPT = "cinematic full head portrait"
FACE_ENCODER = "arcface_antelopev2"
CURE = "train a file with tools/train_dreamid.py, which writes it"

# Blocks with attention, in the order of the file's numbers: down, up, middle.
BLOCKS = (
    *(f"input_blocks.{number}.1" for number in (1, 2, 4, 5, 7, 8)),
    *(f"output_blocks.{number}.1" for number in range(3, 12)),
    "middle_block.1",
)
# What FaceNet computes behind the last self-attention that is read; a file may leave it out.
_LAST = "output_blocks.11.1"
_DEAD = (
    *(f"{_LAST}.transformer_blocks.0.{part}." for part in ("attn1", "attn2", "ff", "norm2", "norm3")),
    f"{_LAST}.proj_out.",
    "out.",
)


@dataclass(frozen=True)
class DreamIdFacts:
    """What the tensors of a file do not say.

    Attributes:
        face_encoder: id of the encoder whose embeddings it was trained on.
        prompt: the constant prompt of both UNets.
        base: which model it was trained from, such as ``"sd-turbo"``.
        head_channels: channels of an attention head; 64 in Stable Diffusion 2.
        prediction: what SwapNet predicts, ``"eps"`` (SD-Turbo) or ``"v"`` (Stable Diffusion 2.1).
        timesteps: those it was trained on, noisiest first; sampling makes as many steps.
        points: number of landmarks that its landmark pictures show.
        steps: optimiser steps that were made.
        triplets: how many triplets it was trained on.
        size: side of the pictures in pixels.
    """

    face_encoder: str = FACE_ENCODER
    prompt: str = PROMPT
    base: str = "sd-turbo"
    head_channels: int = 64
    prediction: str = "eps"
    timesteps: tuple[int, ...] = (999,)
    points: int = 68
    steps: int = 0
    triplets: int = 0
    size: int = 512

    def metadata(self, tokens: int) -> dict[str, str]:
        """All metadata of a file with that many identity tokens."""
        told = {one.name: str(getattr(self, one.name)) for one in fields(self)}
        told["timesteps"] = ",".join(map(str, self.timesteps))
        return {"dreamid_version": VERSION, "num_tokens": str(tokens), **told}


@dataclass(frozen=True)
class Sizes:
    """What shapes tell.

    Attributes:
        levels: channels of the four levels of the UNets.
        context: width of the text context.
        embedding: channels of the face embedding.
        tokens: identity tokens.
        guider: channels behind each convolution of the pose guider.
    """

    levels: tuple[int, ...]
    context: int
    embedding: int
    tokens: int
    guider: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the 16 blocks with attention, in file order."""
        down = [width for width in self.levels[:3] for _ in range(2)]
        up = [width for width in reversed(self.levels[:3]) for _ in range(3)]
        return (*down, *up, self.levels[-1])


def timesteps_of(steps: int) -> tuple[int, ...]:
    """Trailing spacing: 1 gives 999, 4 give 999, 749, 499, 249."""
    return tuple(round(1000 - number * 1000 / steps) - 1 for number in range(steps))


def is_dead(name: str) -> bool:
    """Whether a tensor of FaceNet changes nothing that is read of it."""
    return name.startswith(_DEAD)


def sizes_in(header: CheckpointHeader) -> Sizes | str:
    """The sizes that a file's shapes tell, or the reason (a clause) why it is no such file."""
    levels = [f"{SWAPNET}input_blocks.{number}.0.out_layers.3.weight" for number in (1, 4, 7, 10)]
    guider = ["pose_guider.conv_in.weight", *(f"pose_guider.blocks.{number}.weight" for number in range(6))]
    names = {
        "swapnet": f"{SWAPNET}input_blocks.0.0.weight",
        "facenet": f"{FACENET}input_blocks.0.0.weight",
        "text": f"{SWAPNET}{BLOCKS[0]}.transformer_blocks.0.attn2.to_k.weight",
        "proj": "image_proj.proj.weight",
        "norm": "image_proj.norm.weight",
    }
    shapes = {name: header.shape(key) for name, key in names.items()}
    shapes |= {key: header.shape(key) for key in (*levels, *guider)}
    missing = [names.get(name, name) for name, shape in shapes.items() if not shape]
    if missing:
        return f"no {missing[0]} (DreamID)"
    known = {name: shape for name, shape in shapes.items() if shape}
    if known["swapnet"][1:2] != (8,) or known["facenet"][1:2] != (4,):
        return "first convolutions of other inputs than 8 (swapnet) and 4 (facenet) channels"
    if len(known["text"]) != 2 or len(known["proj"]) != 2 or known["proj"][0] % known["norm"][0]:
        return "image_proj.proj.weight that is no whole number of tokens"
    return Sizes(
        levels=tuple(known[name][0] for name in levels),
        context=known["text"][1],
        embedding=known["proj"][1],
        tokens=known["proj"][0] // known["norm"][0],
        guider=tuple(known[name][0] for name in guider),
    )


def check_unets(header: CheckpointHeader, sizes: Sizes) -> None:
    """Both UNets, name by name and shape by shape.

    Raises:
        KeyMismatch: missing, leftover or ill-shaped tensors.
    """
    for prefix, inputs in ((SWAPNET, 8), (FACENET, 4)):
        expected = unet_shapes(sizes.levels, inputs, sizes.context)
        found = {name: info.shape for name, info in header.with_prefix(prefix).items()}
        optional = {name for name in expected if prefix == FACENET and is_dead(name)}
        missing = expected.keys() - found.keys() - optional
        leftover = found.keys() - expected.keys()
        wrong = [name for name, shape in found.items() if name in expected and shape != expected[name]]
        told = [
            f"{len(names)} {what}: {group_by_prefix(sorted(names))}"
            for what, names in (("missing", missing), ("leftover", leftover), ("of another shape", wrong))
            if names
        ]
        if told:
            raise KeyMismatch(
                f"{header.path.name}, {prefix.rstrip('.')}",
                expected=f"{len(expected)} tensors of a UNet of Stable Diffusion 2.1's layout",
                found="; ".join(told),
                cure=CURE,
            )


def read_facts(header: CheckpointHeader, sizes: Sizes) -> DreamIdFacts:
    """The metadata of a file.

    Raises:
        BadCheckpoint: metadata that are missing, out of range or contradict the shapes; or a file never trained.
    """
    names = ("dreamid_version", "num_tokens", *(one.name for one in fields(DreamIdFacts)))
    metadata = OwnMetadata(header, CURE)
    said = metadata.said(names)
    if said["dreamid_version"] != VERSION or said["num_tokens"] != str(sizes.tokens):
        found = f"version {said['dreamid_version']} with {said['num_tokens']} tokens"
        raise metadata.refused(f"version {VERSION} with {sizes.tokens} tokens, as the shapes say", found)
    facts = _facts(metadata, said)
    metadata.require_trained(facts.steps)
    return facts


def _facts(metadata: OwnMetadata, said: dict[str, str]) -> DreamIdFacts:
    try:
        timesteps = tuple(int(one) for one in said["timesteps"].split(","))
        whole: dict[str, Any] = {
            name: int(said[name]) for name in ("head_channels", "points", "steps", "triplets", "size")
        }
    except ValueError as error:
        raise metadata.refused("numbers in the metadata", str(error)) from error
    falling = list(timesteps) == sorted(set(timesteps), reverse=True)
    if not falling or timesteps[0] > 999 or timesteps[-1] < 0 or said["prediction"] not in PREDICTIONS:
        found = f"prediction {said['prediction']}, timesteps {said['timesteps']}"
        raise metadata.refused(f"prediction {' or '.join(PREDICTIONS)}, falling timesteps of 0..999", found)
    if whole["head_channels"] < 1:
        raise metadata.refused("head_channels above 0", said["head_channels"])
    return DreamIdFacts(
        face_encoder=said["face_encoder"],
        prompt=said["prompt"],
        base=said["base"],
        prediction=said["prediction"],
        timesteps=timesteps,
        **whole,
    )
