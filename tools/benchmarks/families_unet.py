"""Families on a UNet whose nodes take more than an identity: a reference, a bad picture, an exemplar, a voice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .families import Case
from .sampling import Callback, Sampled


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sd15(cfg: float = 4.0) -> Sampled:
    """A latent of 8 x 8 and two prompts."""
    from host_inprocess import conditioning

    return Sampled(seeded(1, 4, 8, 8, seed=5), conditioning("SD15", seed=1), conditioning("SD15", seed=2), cfg)


def restorer(folder: Path) -> Iterator[Case]:
    """RestorerID: a bad picture and one reference."""
    from host_inprocess import tiny_model
    from likeness_pack.inject.restorerid import RestorationOptions, apply_restoration
    from restorer_cases import lq_latents, reference_identity, tiny_restorer

    model, loaded = tiny_model("SD15"), tiny_restorer(folder)

    @functools.cache
    def given(number: int) -> Any:
        return reference_identity(1, number), lq_latents(seed=number)

    def apply(people: int, strength: float, first: int) -> Any:
        identity, latents = given(first)
        return apply_restoration(model, loaded, identity, latents, RestorationOptions((strength,), lora_strength=0.0))

    size = (folder / "any name.safetensors").stat().st_size
    yield Case("restorerid", "RestorerID, SD1.5", model, loaded, size, apply, sd15(), people=(1,), given=given)


def garment(folder: Path) -> Iterator[Case]:
    """DreamFit on SD1.5: the features of one reference."""
    from dreamfit_models import write_unet_file
    from host_inprocess import conditioning, tiny_model
    from likeness_pack.adapters import registry
    from likeness_pack.inject.garment import ReferenceOptions, apply_reference, encode_reference
    from likeness_pack.inject.loaded import LoadedAdapter

    model = tiny_model("SD15")
    path = write_unet_file(folder / "dreamfit.ckpt", model.model.diffusion_model, base=False)
    loaded = LoadedAdapter(registry.load(path))
    known: dict[int, Any] = {}

    def apply(people: int, strength: float, first: int) -> Any:
        if first not in known:
            texts = conditioning("SD15", seed=6), conditioning("SD15", seed=7)
            known[first] = encode_reference(loaded, model, seeded(1, 4, 12, 8, seed=first), *texts)
        return apply_reference(model, known[first], ReferenceOptions(strength=strength))

    yield Case("dreamfit", "DreamFit, SD1.5", model, loaded, path.stat().st_size, apply, sd15(), people=(1,))


class Exemplar:
    """AM-Adapter on a tiny model, with a second model that sees the exemplar.

    Args:
        path: where the matcher's file goes.
    """

    def __init__(self, path: Path) -> None:
        from host_inprocess import tiny_model
        from likeness_pack.adapters import registry
        from likeness_pack.adapters.families.am_adapter.arch import Matcher
        from likeness_pack.inject.loaded import LoadedAdapter
        from safetensors.torch import save_file

        self.path, self.model, self.other = path, tiny_model("SD15"), tiny_model("SD15", seed=7)
        shapes = {name: value.shape for name, value in Matcher((9, 16, 32, 16, 8)).state_dict().items()}
        save_file({name: seeded(*shape, seed=3) * 0.4 for name, shape in shapes.items()}, path)
        self.loaded: Any = LoadedAdapter(registry.load(path, kind="adapter"))
        maps = torch.zeros(2, 3, 64, 64)
        maps[0, 0, :, 24:], maps[1, 0, 40:] = 1, 1
        self.maps = maps[0], maps[1]

    def apply(self, strength: float, first: int, controls: Any = None) -> Any:
        """MODEL for the exemplar of a number."""
        from likeness_pack.inject.am_adapter import MatchOptions, apply_am_adapter
        from likeness_pack.inject.exemplar_pass import Trajectory

        trajectory = Trajectory(torch.tensor([0.03, 1.0, 15.0]), seeded(3, 4, 8, 8, seed=first))
        options, matcher = MatchOptions(strength=strength), self.loaded.adapter
        return apply_am_adapter(self.model, self.other, matcher, trajectory, self.maps, options, controls)


def exemplar(folder: Path) -> Iterator[Case]:
    """AM-Adapter: the exemplar's pass through a second model is part of each step."""
    one = Exemplar(folder / "matcher.safetensors")

    def apply(people: int, strength: float, first: int) -> Any:
        return one.apply(strength, first)

    size, beside = one.path.stat().st_size, (one.other,)
    subject = "AM-Adapter, SD1.5"
    yield Case("am_adapter", subject, one.model, one.loaded, size, apply, sd15(), people=(1,), beside=beside)


@dataclass(frozen=True)
class LipCalls:
    """Calls of MuseTalk's network in place of steps: it has one for each batch of frames."""

    latents: Tensor
    sound: Tensor

    def run(self, model: Any, steps: int, callback: Callback | None = None) -> Tensor:
        """The network ``steps`` times."""
        from likeness_pack.inject.host import model_management
        from likeness_pack.inject.musetalk import load_for, predict

        load_for(model, len(self.latents), self.latents.shape[-1])
        device = model_management().get_torch_device()
        with torch.inference_mode():
            for number in range(steps):
                out: Tensor = predict(model, self.latents.to(device), self.sound.to(device))
                if callback is not None:
                    callback(number)
        return out


def lips(folder: Path) -> Iterator[Case]:
    """UnAvgLip on MuseTalk: four photos of one person."""
    from identities import arcface_identity
    from likeness_pack.inject.unavglip import LipIdentityOptions, apply_lip_identity
    from musetalk_models import adapter_of, model_of, write_musetalk, write_unavglip

    model = model_of(write_musetalk(folder / "unet.safetensors"), "v1")
    path = write_unavglip(folder / "identity.safetensors")
    loaded = adapter_of(path)
    given = functools.cache(lambda number: arcface_identity(number, photos=4))

    def apply(people: int, strength: float, first: int) -> Any:
        return apply_lip_identity(model, loaded, given(first), LipIdentityOptions(strength, 0.0))

    calls: Any = LipCalls(seeded(2, 8, 8, 8), seeded(2, 50, 384, seed=1))
    size, subject = path.stat().st_size, "UnAvgLip on MuseTalk"
    yield Case("unavglip", subject, model, loaded, size, apply, calls, people=(1,), given=given)


BUILDERS = {"restorerid": restorer, "dreamfit": garment, "am_adapter": exemplar, "unavglip": lips}
