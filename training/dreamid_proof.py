"""Proves DreamID's training on drawn faces: held-out swaps look more like the source, and keep the target's pose.

Both are read off the swapped pictures by drawing (`dreamid_drawn.read_faces`); no encoder of the loss takes part. The
model starts from a UNet that was never trained, predicts velocity as Stable Diffusion 2.1 does, and makes one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..adapters import registry
from ..adapters.families.dreamid.layout import DreamIdFacts
from .dreamid import DreamIdOptions, Tools, model_of, prepare, swap, train_dreamid
from .dreamid_drawn import (
    DrawnTriplets,
    PatchCodec,
    drawn_triplets,
    encoder_of,
    face_similarity,
    pose_error,
    read_faces,
)
from .dreamid_losses import embedded
from .dreamid_unet import SwapModel, random_base, started
from .loop import LoopOptions, OnStep
from .seeds import generator_for

LEVELS, CONTEXT, HEAD_CHANNELS, TOKENS = (32, 32, 32, 32), 32, 16, 4
FACTS = DreamIdFacts(
    face_encoder="drawn_linear", base="untrained", head_channels=HEAD_CHANNELS, prediction="v", steps=1, size=32
)
TRAINED, HELD = 600, 48
# Residual branches of an untrained UNet start small, as Stable Diffusion's own did.
_QUIET, _GAIN = ("out_layers.3", "proj_out", "out.2"), 0.1


@dataclass(frozen=True)
class Measured:
    """Means over held-out triplets.

    Attributes:
        similarity: cosine of the face's numbers, read off the pictures, and the source person's.
        pose: distance of yaw, pitch and roll from the target's, in degrees.
        encoder: cosine by the encoder of the loss.
    """

    similarity: float
    pose: float
    encoder: float


@dataclass(frozen=True)
class Proof:
    """One run.

    Attributes:
        seed, steps: of the run.
        before, after: the swapped pictures of the untrained model, and of the saved file, loaded anew.
        wrong_source: of the saved file, where each target is given another person's source.
        target, truth: of the pseudo-targets and of the right answers themselves.
    """

    seed: int
    steps: int
    before: Measured
    after: Measured
    wrong_source: Measured
    target: Measured
    truth: Measured

    def as_text(self) -> str:
        """One line for each kind of picture."""
        names = ("before", "after", "wrong_source", "target", "truth")
        rows = [f"seed {self.seed}, {self.steps} steps: held-out similarity to the source, pose error, loss's encoder"]
        for name in names:
            one: Measured = getattr(self, name)
            rows.append(f"  {name:12} {one.similarity:+.3f}  {one.pose:5.2f} deg  {one.encoder:+.3f}")
        return "\n".join(rows)


class DrawnTools:
    """Codec, encoder and text that all runs share, and the held-out triplets, whose persons no run trains on.

    Args:
        held: number of held-out triplets.
    """

    def __init__(self, held: int = HELD) -> None:
        codec_faces = drawn_triplets(200, "drawn codec").triplets.rows(range(200)).truth
        self.codec = PatchCodec(codec_faces)
        text = torch.randn(1, 4, CONTEXT, generator=generator_for("drawn text"))
        self.tools = Tools(self.codec, encoder_of(300, 6, "drawn encoder"), text)
        self.held: DrawnTriplets = drawn_triplets(held, "drawn held out")

    def measured(self, pictures: Tensor) -> Measured:
        """Measure pictures (B, 3, S, S) in the place of the held-out swaps."""
        held = self.held
        rows = held.triplets.rows(range(len(held.triplets)))
        reading = read_faces(pictures, self.codec, held.people, held.attributes)
        with torch.no_grad():
            seen = embedded(self.tools.embed, pictures, rows.truth5)
            source = embedded(self.tools.embed, rows.source, rows.source5)
        return Measured(
            float(face_similarity(reading, held.people).mean()),
            float(pose_error(reading, held.attributes).mean()),
            float((seen * source).sum(dim=1).mean()),
        )

    def swapped(self, model: SwapModel, wrong_source: bool = False) -> Measured:
        """Measure a model's swaps."""
        ready = prepare(self.held.triplets, range(len(self.held.triplets)), self.tools)
        told = ready.conditions
        if wrong_source:
            told = type(told)(told.target, told.source.roll(1, 0), told.embedding.roll(1, 0), told.landmarks, told.text)
        return self.measured(swap(model, told, self.codec, FACTS))


def untrained(seed: int) -> SwapModel:
    """The model that a run starts from."""
    base = random_base(LEVELS, CONTEXT, HEAD_CHANNELS, seed)
    for name, tensor in base.items():
        if name.rsplit(".", 1)[0].endswith(_QUIET):
            tensor.mul_(_GAIN)
    return started(base, HEAD_CHANNELS, 32, TOKENS, seed)


def prove(seed: int, steps: int, path: Path, world: DrawnTools | None = None, on_step: OnStep | None = None) -> Proof:
    """Train once, save, load the file as any other, and measure.

    Args:
        seed: of weights, triplets and noise.
        steps: of the run.
        path: the file to write; the training state lies beside it.
        world: made where None.
        on_step: see `loop.train`.
    """
    world = world or DrawnTools()
    model = untrained(seed)
    before = world.swapped(model)
    triplets = drawn_triplets(TRAINED, "drawn training", seed).triplets
    options, loop = DreamIdOptions(seed=seed, batch=16), LoopOptions(steps, 3e-3)
    train_dreamid(model, triplets, world.tools, path, FACTS, options, loop, on_step=on_step, dtype=torch.float32)
    loaded = model_of(registry.load(path, kind="adapter"))
    rows = world.held.triplets.rows(range(len(world.held.triplets)))
    own = [world.measured(world.codec.decode(world.codec.encode(one))) for one in (rows.target, rows.truth)]
    return Proof(seed, steps, before, world.swapped(loaded), world.swapped(loaded, wrong_source=True), *own)
