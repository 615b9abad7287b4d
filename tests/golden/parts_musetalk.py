"""MuseTalk: its UNet through the host's own loader and classes, preparation of frames, and pasting."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Golden, part
from musetalk_models import filled_model


@part("musetalk_unet_small")
def musetalk_unet_small(golden: Golden) -> None:
    """A small UNet in the published layout: written, recognised, loaded, called once; and the sound's positions."""
    from likeness_pack.adapters.encoders.whisper.musetalk_position import with_positions
    from likeness_pack.inject.musetalk import predict

    inputs = golden.metadata["inputs"]
    audio = with_positions(golden.input("audio", inputs["audio"]))
    golden.check("audio_pe_first8", audio[:, : golden.tensors["audio_pe_first8"].shape[1]])
    latents = golden.input("latents", golden.tensors["pred"].shape[:1] + (8, *golden.tensors["pred"].shape[2:]))
    with TemporaryDirectory() as folder:
        model = filled_model(golden, golden.keys, Path(folder))
    golden.check("pred", predict(model, latents * _factor(inputs["latents"]), audio))


def _factor(recipe: str) -> float:
    """The number after the asterisk in an input's recipe."""
    return float(recipe.rsplit("*", 1)[1])
