"""Applying again with another strength: no network runs, nothing old is given for what changed, nothing stays behind.

The first MODEL is dropped before the second is made, as hosts do; what other nodes gave is kept, as hosts do too.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.inject.dreamid import SwapOptions
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.nodes.avatar_emotion import LikenessApplyAvatarEmotion
from likeness_pack.nodes.dreamid_v import LikenessConditionDreamIDV
from likeness_pack.nodes.restore import LikenessApplyRestorer
from likeness_pack.tools.benchmarks import families, families_dit, families_more, families_unet
from likeness_pack.tools.benchmarks.families import Case
from likeness_pack.tools.benchmarks.sampling import Sampled
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from restorer_cases import lq_latents, reference_identity, tiny_restorer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Build = Callable[[Path], Iterator[Case]]
IN_THE_STEP = {"am_adapter": families_unet.exemplar, "am_adapter_controlnext": families_more.control}
# All that `Apply Face Identity` applies goes through one function.
PICTURES = ("ip_adapter_sd15", "ip_adapter_plus_sd15")
ON_ANY: dict[str, Build] = {
    **{name: partial(families.unet_cases, names=(name,)) for name in PICTURES},
    **families_unet.BUILDERS,
    **families_more.BUILDERS,
}
ON_NEWER: dict[str, Build] = {f"{name} on a transformer": build for name, build in families_dit.BUILDERS.items()}


def builders() -> dict[str, Build]:
    found = {**ON_ANY, **(ON_NEWER if engine().has_wrappers else {})}
    return {name: build for name, build in found.items() if name not in IN_THE_STEP}


@contextmanager
def counted() -> Iterator[list[str]]:
    """The layers of any network, the host's included, that run inside the block."""
    ran: list[str] = []

    def note(module: nn.Module, *_: Any) -> None:
        ran.append(type(module).__name__)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        yield ran
    finally:
        handle.remove()


@pytest.mark.parametrize("name", builders())
def test_another_strength_runs_no_network(name: str, tmp_path: Path) -> None:
    """Neither an encoder nor a projection; a new identity runs them again."""
    (case,) = builders()[name](tmp_path)
    case.given(0)
    for first, strength, works in ((0, 1.0, True), (0, 0.5, False), (1, 0.5, True), (0, 1.0, False)):
        with counted() as ran:
            case.apply(1, strength, first)
        assert bool(ran) is works, (first, strength, ran[:5])


@pytest.mark.parametrize("name", IN_THE_STEP)
def test_what_works_in_the_step_runs_nothing_when_applied(name: str, tmp_path: Path) -> None:
    """There is nothing to keep."""
    (case,) = IN_THE_STEP[name](tmp_path)
    with counted() as ran:
        case.apply(1, 1.0, 0)
    assert not ran


@pytest.mark.parametrize(
    "name", [name for name in builders() if name in {"restorerid", "avatar_emotion on a transformer"}]
)
def test_what_is_kept_gives_what_is_made(name: str, tmp_path: Path) -> None:
    """A result with kept parts is bit-equal to that of an adapter that was loaded anew."""
    (case,) = builders()[name](tmp_path)
    case.apply(1, 1.0, 0)
    again = case.sampled.run(case.apply(1, 0.5, 0), 2)
    (fresh,) = builders()[name](tmp_path)
    assert torch.equal(again, fresh.sampled.run(fresh.apply(1, 0.5, 0), 2))


# DreamID, which is made of four things: latents of targets and source, tokens of source and identity, landmarks


@pytest.fixture(scope="module")
def swap(module_folders: ModuleFolders) -> Any:
    return families_more.DreamIdSwap(module_folders.mktemp("dreamid") / "dreamid.safetensors")


def anew(swap: Any) -> Any:
    """The same file loaded again, with nothing kept."""
    other = copy.copy(swap)
    other.loaded = LoadedAdapter(registry.load(swap.path, kind="adapter"))
    return other


def test_nothing_outlives_what_it_was_made_of(swap: Any) -> None:
    swap = anew(swap)
    made: list[Any] = []
    keep = swap.loaded.made

    def noted(key: tuple[object, ...], make: Callable[[], Any], of: object) -> Any:
        made.append(weakref.ref(keep(key, make, of)))
        return made[-1]()

    swap.loaded.made = noted
    given = families_more._swap_given(1, 0)
    swap.given = lambda count, person: given
    swap.apply(1, 0, SwapOptions(1, 1.0, 1.0))
    assert len(made) == 5 and all(value() is not None for value in made)
    given = ()
    gc.collect()
    assert [value() for value in made] == [None] * 5


@pytest.mark.parametrize("place", range(4), ids=["targets", "source", "identity", "landmarks"])
def test_a_changed_picture_gets_no_old_result(place: int, swap: Any) -> None:
    """Pictures that are changed in place, and identities that are replaced, as an adapter loaded anew sees them."""
    given = list(families_more._swap_given(1, 0))

    def result(swap: Any) -> Tensor:
        sampled = Sampled(torch.ones(1, 4, 8, 8), swap.text, swap.text, 1.0)
        swap.given = lambda count, person: given
        return sampled.run(swap.apply(1, 0, SwapOptions(1, 0.5, 0.5)).model, 1)

    old = anew(swap)
    before = result(old)
    if place == 2:
        given[2] = families_more._swap_given(1, 9)[2]
    else:
        given[place].copy_(given[place].flip(2))
    after = result(old)
    assert not torch.equal(after, before)
    assert torch.equal(after, result(anew(swap)))


def test_another_vae_encodes_again(swap: Any) -> None:
    swap = anew(swap)
    swap.apply(1, 0, SwapOptions(1, 1.0, 1.0))
    encoded: list[Tensor] = []

    class Half:
        def encode(self, pictures: Tensor) -> Tensor:
            encoded.append(pictures)
            return swap_vae.encode(pictures) * 0.5

    swap_vae, swap.vae = swap.vae, Half()
    swap.apply(1, 0, SwapOptions(1, 0.5, 0.5))
    assert len(encoded) == 2


def test_a_lora_is_fitted_to_each_base_model(tmp_path: Path) -> None:
    """PhotoMaker's names and shapes are read once for a model; one of another width is refused as before."""
    from likeness_pack.adapters.errors import BaseModelMismatch
    from likeness_pack.inject.text_identity import apply_text_lora

    (case,) = families_more.prompt(tmp_path)
    apply_text_lora(case.model, case.loaded, 1.0)
    with pytest.raises(BaseModelMismatch):
        apply_text_lora(tiny_model("SDXL", 64), case.loaded, 1.0)
    one, other = (apply_text_lora(model, case.loaded, 0.5) for model in (case.model, tiny_model("SDXL", seed=4)))
    assert one.patches.keys() == other.patches.keys() and one.patches


# Nodes that encode beside applying


@pytest.fixture(scope="module")
def quality(module_folders: ModuleFolders) -> LoadedEncoder:
    return LoadedEncoder(registry.load(write_standin("musiq", module_folders.mktemp("musiq")), kind="encoder"))


def test_restoring_with_another_strength_judges_nothing_again(quality: LoadedEncoder, tmp_path: Path) -> None:
    """The adaptive scale, and what a file that borrows its projection made with it: both are kept."""
    model, identity = tiny_model("SD15"), reference_identity(1, 0)
    tiny_restorer(tmp_path)
    whole = load_file(tmp_path / "any name.safetensors")
    save_file({name: one for name, one in whole.items() if not name.startswith("Adapter.")}, tmp_path / "bare.sft")
    adapter = LoadedAdapter(registry.load(tmp_path / "bare.sft", kind="adapter"))
    plus = LoadedAdapter(registry.load(write_standin("faceid-plus-sd15", tmp_path, (8,)), kind="adapter"))
    images, latent = torch.rand(1, 64, 64, 3), {"samples": lq_latents()}

    def apply(structure: float) -> Any:
        numbers = (0.75, 1.0, structure, 1.0, 1.0, 0.0, 1.0)
        found = LikenessApplyRestorer().apply(
            model, adapter, identity, latent, "adaptive", *numbers, images, quality, plus
        )
        return found["result"]

    first = apply(1.0)
    with counted() as ran:
        second = apply(0.5)
    assert not ran and second[2:] == first[2:]
    images.mul_(0.3)
    with counted() as ran:
        third = apply(0.5)
    assert ran and third[2] != first[2]


class CountingVae:
    """Latents of a Wan VAE's shape; notes what it is given."""

    latent_channels, latent_dim = 16, 3

    def __init__(self) -> None:
        self.given: list[tuple[int, ...]] = []

    def encode(self, pictures: Tensor) -> Tensor:
        self.given.append(tuple(pictures.shape))
        small = nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8)[::4]
        return small.repeat(1, 6, 1, 1)[:, :16].movedim(0, 1)[None].clone()


def test_the_emotion_node_encodes_its_picture_once(tmp_path: Path) -> None:
    if not engine().has_wrappers:
        pytest.skip("HunyuanVideo's blocks can be patched in newer hosts only")
    (case,) = families_dit.emotion(tmp_path)
    vae, picture = CountingVae(), torch.rand(1, 64, 64, 3)

    def apply(strength: float) -> Any:
        return LikenessApplyAvatarEmotion().apply(case.model, vae, picture, strength, 0.0, 1.0, False, case.loaded)[0]

    apply(1.0)
    with counted() as ran:
        again = apply(0.5)
    assert len(vae.given) == 1 and not ran
    picture.mul_(0.5)
    other = apply(0.5)
    assert len(vae.given) == 2
    assert not torch.equal(case.sampled.run(again, 1), case.sampled.run(other, 1))


def test_the_conditions_of_a_clip_are_encoded_once(tmp_path: Path) -> None:
    if not engine().has_wrappers:
        pytest.skip("Wan's blocks can be patched in newer hosts only")
    (case,) = families_dit.pose(tmp_path)
    vae, pose = CountingVae(), case.given(0)
    frames, photo, mask = torch.rand(pose.shape), torch.rand(1, *pose.shape[1:]), torch.ones(pose.shape[:3])
    text = [[case.sampled.positive[0][0], {}]]

    def apply(strength: float) -> Any:
        return LikenessConditionDreamIDV().condition(
            case.model, case.loaded, text, text, vae, frames, photo, mask, strength, pose
        )

    first = apply(1.0)
    with counted() as ran:
        again = apply(0.5)
    assert len(vae.given) == 3 and not ran
    told = [each[1][0][1]["concat_latent_image"] for each in (first, again)]
    assert torch.equal(*told)
    mask[:, :8] = 0
    apply(0.5)
    assert len(vae.given) == 4
