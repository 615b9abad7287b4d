"""Families whose 'without' is no plain model: a prompt beside it, ControlNeXt on AM-Adapter, DreamID's conditions."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .families import LIMITS, Case
from .families_unet import Exemplar, seeded
from .sampling import Prompted, Sampled

DREAMID_CONTEXT, DREAMID_EMBEDDING = 24, 16


def prompt(folder: Path) -> Iterator[Case]:
    """PhotoMaker: the identity in the prompt, the LoRA in the weights; the step has no more to do than without."""
    from common_adapters import photomaker_lora, save, tiny_photomaker
    from host_encoders import ToyClip
    from host_inprocess import conditioning, tiny_model
    from likeness_pack.adapters import registry
    from likeness_pack.inject.layer_map import unet_layers
    from likeness_pack.inject.loaded import LoadedAdapter
    from likeness_pack.inject.text_identity import apply_text_lora, encode_photos_for_text, identity_conditioning

    model, path = tiny_model("SDXL"), folder / "photomaker.bin"
    modules = {
        f"{layer.path}.attn{number}.{end}": (layer.width, layer.width)
        for layer in unet_layers(model)
        for number in (1, 2)
        for end in ("to_q", "to_out.0")
    }
    save(path, tiny_photomaker(False) | photomaker_lora(modules))
    loaded, clip = LoadedAdapter(registry.load(path)), ToyClip()
    known: dict[int, Any] = {}

    def apply(people: int, strength: float, first: int) -> Any:
        if first not in known:
            photos = torch.rand(1, 60, 80, 3, generator=torch.Generator().manual_seed(first))
            identity = encode_photos_for_text(loaded, photos, None)
            known[first] = identity_conditioning(clip, loaded, identity, "photo of a woman img", "img", 0.0)
        return apply_text_lora(model, loaded, strength), known[first]

    sampled = Sampled(seeded(1, 4, 8, 8, seed=5), conditioning("SDXL", seed=1), conditioning("SDXL", seed=2))
    size = path.stat().st_size
    subject = "PhotoMaker, SDXL"
    yield Case("photomaker", subject, model, loaded, size, apply, Prompted(sampled), people=(1,), limits=LIMITS)


def control(folder: Path) -> Iterator[Case]:
    """ControlNeXt on AM-Adapter, in both of its models; 'without' is AM-Adapter alone."""
    from likeness_pack.adapters.families.am_adapter.controlnext.arch import ControlNeXt
    from likeness_pack.inject.exemplar import Control
    from likeness_pack.inject.managed import ManagedNetwork

    from .families_unet import sd15

    torch.manual_seed(5)
    exemplar = Exemplar(folder / "matcher_controlled.safetensors")
    network = ManagedNetwork(ControlNeXt(32).eval().requires_grad_(False))

    def apply(people: int, strength: float, first: int) -> Any:
        controls = tuple(Control(network, one[None], strength) for one in exemplar.maps)
        return exemplar.apply(1.0, first, controls)

    known = (exemplar.other, exemplar.loaded)
    subject = "ControlNeXt on AM-Adapter, SD1.5"
    plain = exemplar.apply(1.0, 0)
    yield Case(
        "am_adapter_controlnext", subject, plain, network, network.bytes, apply, sd15(), people=(1,), beside=known
    )


def swapnet(folder: Path) -> Iterator[Case]:
    """DreamID's SwapNet with the identity's tokens and the landmarks; 'without' sees target and source alone."""
    from likeness_pack.inject.dreamid import SwapOptions

    swap = DreamIdSwap(folder / "dreamid.safetensors")

    def apply(people: int, strength: float, first: int) -> Any:
        return swap.apply(1, first, SwapOptions(1, strength, strength)).model

    def given(number: int) -> Any:
        return swap.given(1, number)

    plain = swap.apply(1, 0, SwapOptions(1, 0.0, 0.0)).model
    sampled = Sampled(seeded(1, 4, 8, 8, seed=5), swap.text, swap.text, 1.0)
    size = swap.path.stat().st_size
    yield Case("dreamid", "DreamID, SD2.1", plain, swap.loaded, size, apply, sampled, people=(1,), given=given)


class DreamIdSwap:
    """A stand-in file of DreamID with the host's small VAE.

    Args:
        path: where the file goes.
    """

    def __init__(self, path: Path) -> None:
        from likeness_pack.adapters import registry
        from likeness_pack.adapters.families.dreamid.layout import DreamIdFacts
        from likeness_pack.inject.loaded import LoadedAdapter
        from likeness_pack.training.dreamid import save_model
        from likeness_pack.training.dreamid_unet import fill_seeded, random_base, started
        from small_vae import small_vae

        facts = DreamIdFacts(face_encoder="drawn", base="test", head_channels=16, steps=1, triplets=1, size=64)
        model = started(random_base((32, 32, 64, 64), DREAMID_CONTEXT, 16, 1), 16, DREAMID_EMBEDDING, 3, 2)
        for number, unet in enumerate((model.swapnet, model.facenet, model.added)):
            fill_seeded(unet, 3 + number)
        save_model(path, model, facts, torch.float32)
        self.path, self.vae = path, small_vae()
        self.loaded: Any = LoadedAdapter(registry.load(path, kind="adapter"))
        self.text = [[seeded(1, 5, DREAMID_CONTEXT, seed=8), {}]]
        self.given = functools.cache(_swap_given)

    def apply(self, count: int, person: int, options: Any) -> Any:
        """The `Swap` of so many targets for one person; without a strength of the pose no landmarks are given."""
        from likeness_pack.inject.dreamid import apply_dreamid

        targets, source, identity, marks = self.given(count, person)
        shown = marks if options.pose_strength else None
        return apply_dreamid(self.loaded, self.vae, targets, source, self.text, identity, shown, options)


def _swap_given(count: int, person: int) -> tuple[Any, ...]:
    """Targets, source, identity and landmark pictures."""
    from likeness_pack.adapters.families.dreamid.landmark_picture import landmark_pictures
    from likeness_pack.adapters.identity import EMBEDDING, Identity

    chance = torch.Generator().manual_seed(person)
    targets, source = (torch.rand(number, 64, 64, 3, generator=chance) for number in (count, 1))
    identity = Identity("drawn", {EMBEDDING: torch.randn(1, DREAMID_EMBEDDING, generator=chance)})
    points = torch.rand(count, 5, 2, generator=chance) * 60
    return targets, source, identity, landmark_pictures(points, 64, 64, 64).movedim(1, -1)


BUILDERS = {"photomaker": prompt, "am_adapter_controlnext": control, "dreamid": swapnet}
