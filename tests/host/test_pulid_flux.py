"""PuLID for Flux on the host's own Flux of published depth; a host without Flux says which ComfyUI it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from host_inprocess import engine, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import BaseModelMismatch, HostTooOld, PatchIncomplete
from likeness_pack.adapters.families.pulid_flux.adapter import PulidFluxAdapter
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from tiny_pulid import FLUX_WIDTH, flux_shapes, pulid_identity, sample_flux, tiny_flux, write
from torch import Tensor


@pytest.fixture(scope="module")
def has_flux() -> bool:
    """Whether this engine has Flux."""
    return engine().has_wrappers


@pytest.fixture(scope="module")
def model(has_flux: bool) -> Any:
    """19 double and 38 single blocks."""
    if not has_flux:
        pytest.skip("needs a newer host: this ComfyUI has no Flux")
    return tiny_flux()


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """A file with 20 modules."""
    return LoadedAdapter(registry.load(write(module_folders.mktemp("flux") / "any.safetensors", flux_shapes())))


def _slots(model: Any) -> dict[tuple[str, int], Any]:
    return model.model_options["transformer_options"]["patches_replace"]["dit"]


def test_a_host_without_flux_says_what_it_needs(loaded: LoadedAdapter, has_flux: bool) -> None:
    """The pack and the file load everywhere; only applying needs the newer host."""
    if has_flux:
        with pytest.raises(BaseModelMismatch, match=f"Flux model of width {FLUX_WIDTH} with 20 places"):
            apply_identity(tiny_model("SD15"), loaded, pulid_identity(), ApplyOptions())
        return
    with pytest.raises(HostTooOld, match=r"ComfyUI 0\.3\.60 or newer, found one without Flux"):
        apply_identity(tiny_model("SD15"), loaded, pulid_identity(), ApplyOptions())


def test_all_twenty_published_places_are_called(model: Any, loaded: LoadedAdapter, monkeypatch: Any) -> None:
    """Double blocks 0, 2, ... 18 are modules 0 to 9, single blocks 0, 4, ... 36 are modules 10 to 19, in that order."""
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions())
    expected = [("double_block", n) for n in range(0, 19, 2)] + [("single_block", n) for n in range(0, 38, 4)]
    assert list(_slots(patched)) == expected
    calls: list[int] = []
    original = PulidFluxAdapter.added

    def noted(self: PulidFluxAdapter, index: int, image: Tensor, *rest: Any) -> Tensor:
        calls.append(index)
        return original(self, index, image, *rest)

    monkeypatch.setattr(PulidFluxAdapter, "added", noted)
    sample_flux(patched, steps=1)
    assert calls == list(range(20))


def test_the_whole_network_is_the_written_out_one(model: Any, loaded: LoadedAdapter) -> None:
    """Against hooks on the blocks that add the official term to the picture tokens and leave the text tokens alone."""
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions(strength=0.9))
    adapter: Any = loaded.adapter
    tokens = adapter.tokens(pulid_identity(), TokenOptions()).cond
    text_tokens: list[int] = []

    def official(index: int, image: Tensor) -> Tensor:
        module = adapter.attentions[index]
        k, v = module.to_kv(module.norm1(tokens)).expand(image.shape[0], -1, -1).chunk(2, dim=-1)
        q = module.to_q(module.norm2(image))
        return 0.9 * module.to_out((q @ k.transpose(1, 2) / 128**0.5).softmax(-1) @ v)

    def after_double(index: int) -> Any:
        def hook(block: Any, args: Any, out: Any) -> Any:
            text_tokens.append(out[1].shape[1])
            return out[0] + official(index, out[0]), out[1]

        return hook

    def after_single(index: int) -> Any:
        def hook(block: Any, args: Any, out: Tensor) -> Tensor:
            text, image = out[:, : text_tokens[-1]], out[:, text_tokens[-1] :]
            return torch.cat((text, image + official(index, image)), dim=1)

        return hook

    got = sample_flux(patched, batch=2)
    dit = model.model.diffusion_model
    hooks = [dit.double_blocks[2 * n].register_forward_hook(after_double(n)) for n in range(10)]
    hooks += [dit.single_blocks[4 * n].register_forward_hook(after_single(10 + n)) for n in range(10)]
    try:
        expected = sample_flux(model, batch=2)
    finally:
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert (got - sample_flux(model, batch=2)).abs().max() > 1e-2


def test_nothing_stays(model: Any, loaded: LoadedAdapter) -> None:
    """Strength 0, steps out of range, and the model that came in: bit-equal."""
    before = sample_flux(model)
    assert not torch.equal(sample_flux(apply_identity(model, loaded, pulid_identity(), ApplyOptions())), before)
    for options in (ApplyOptions(strength=0.0), ApplyOptions(start_percent=1.0)):
        assert torch.equal(sample_flux(apply_identity(model, loaded, pulid_identity(), options)), before)
    assert torch.equal(sample_flux(model), before)


def test_later_steps_only(model: Any, loaded: LoadedAdapter) -> None:
    late = apply_identity(model, loaded, pulid_identity(), ApplyOptions(start_percent=0.5))
    results = [
        sample_flux(m, steps=4) for m in (late, model, apply_identity(model, loaded, pulid_identity(), ApplyOptions()))
    ]
    assert len({float(result.sum()) for result in results}) == 3


def test_outside_the_mask_nothing_is_added(model: Any, loaded: LoadedAdapter) -> None:
    """In both kinds of blocks the tokens outside are the block's own to the last bit, those inside as without mask."""
    mask = torch.zeros(8, 6)
    mask[:, :4] = 1  # two of three token columns
    masked, whole = (apply_identity(model, loaded, pulid_identity(), ApplyOptions(mask=m)) for m in (mask, None))
    inside = torch.tensor([True, True, False]).repeat(4)
    got = {name: _block_outputs(m) for name, m in (("masked", masked), ("whole", whole))}
    for kind in ("double_block", "single_block"):
        plain, with_mask = got["masked"][kind]
        _, everywhere = got["whole"][kind]
        assert torch.equal(with_mask[:, ~inside], plain[:, ~inside])
        torch.testing.assert_close(with_mask[:, inside], everywhere[:, inside], atol=1e-6, rtol=1e-5)
        assert (everywhere - plain).abs().amax(-1).min() > 1e-6


def _block_outputs(patched: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Picture tokens before and after the term, of the first patched block of each kind, for fixed tokens."""
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(1, n, FLUX_WIDTH, generator=generator) for n in (12, 5))
    state = CallState((1, 16, 8, 6))
    options = {"cond_or_uncond": [0], "likeness_call": state}
    results = {}
    for place in (("double_block", 0), ("single_block", 4)):
        joined = image if place[0] == "double_block" else torch.cat((text, image), dim=1)
        args = {"img": joined, "txt": text, "transformer_options": options}
        with torch.no_grad():
            out = _slots(patched)[place](args, {"original_block": lambda a: {"img": a["img"], "txt": a["txt"]}})
        assert torch.equal(out["txt"], text)
        assert torch.equal(out["img"][:, :-12], joined[:, :-12])
        results[place[0]] = (image, out["img"][:, -12:])
    return results


def test_reference_pictures_are_outside_of_a_mask(model: Any, loaded: LoadedAdapter) -> None:
    """A reference latent's tokens follow the picture's; a mask of the picture fits all the same."""
    reference = [torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(3))]
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions(mask=torch.ones(8, 6)))
    got, plain = (sample_flux(m, reference_latents=reference) for m in (patched, model))
    assert torch.isfinite(got).all()
    assert (got - plain).abs().max() > 1e-3


def test_true_cfg_gives_the_negative_rows_their_own_tokens(model: Any, loaded: LoadedAdapter) -> None:
    both = sample_flux(apply_identity(model, loaded, pulid_identity(), ApplyOptions()), cfg=3.0)
    alone = ApplyOptions(tokens=TokenOptions(negative=False))
    positive = sample_flux(apply_identity(model, loaded, pulid_identity(), alone), cfg=3.0)
    assert (both - positive).abs().max() > 1e-4


def test_two_people_and_a_second_application(model: Any, loaded: LoadedAdapter) -> None:
    def applied(*pairs: tuple[int, float]) -> Tensor:
        patched = model
        for seed, strength in pairs:
            patched = apply_identity(patched, loaded, pulid_identity(seed), ApplyOptions(strength=strength))
        return sample_flux(patched)

    assert torch.equal(applied((0, 0.3), (0, 0.6)), applied((0, 0.6)))
    assert (applied((0, 0.6), (1, 0.6)) - applied((0, 0.6))).abs().max() > 1e-4


def test_chains_with_a_replacement_that_was_there(model: Any, loaded: LoadedAdapter) -> None:
    calls: list[str] = []

    def other(args: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        calls.append("called")
        return block["original_block"](args)

    foreign = model.clone()
    foreign.set_model_patch_replace(other, "dit", "single_block", 4)
    patched = apply_identity(foreign, loaded, pulid_identity(), ApplyOptions())
    plain = sample_flux(apply_identity(model, loaded, pulid_identity(), ApplyOptions()))
    calls.clear()
    assert torch.equal(sample_flux(patched), plain)
    assert calls == ["called"] * 2


def test_a_block_taken_by_another_node_is_an_error(model: Any, loaded: LoadedAdapter) -> None:
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions())
    patched.set_model_patch_replace(lambda args, block: block["original_block"](args), "dit", "single_block", 8)
    with pytest.raises(PatchIncomplete, match="all 10 single_block layers.*found 9"):
        sample_flux(patched)


def test_a_flux_of_another_depth_or_width(tmp_path: Path, model: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(BaseModelMismatch, match="2 double and 4 single blocks"):
        apply_identity(tiny_flux(2, 4), loaded, pulid_identity(), ApplyOptions())
    wide = LoadedAdapter(registry.load(write(tmp_path / "wide.safetensors", flux_shapes(width=2 * FLUX_WIDTH))))
    with pytest.raises(BaseModelMismatch, match=f"found width {FLUX_WIDTH}"):
        apply_identity(model, wide, pulid_identity(), ApplyOptions())
    small = LoadedAdapter(registry.load(write(tmp_path / "small.safetensors", flux_shapes(modules=2))))
    assert torch.isfinite(sample_flux(apply_identity(tiny_flux(2, 4), small, pulid_identity(), ApplyOptions()))).all()


def test_another_transformer_with_such_blocks(model: Any, loaded: LoadedAdapter) -> None:
    """HunyuanVideo has double and single blocks too; its weights know nothing of this adapter."""

    class Other(torch.nn.Module):
        hidden_size = FLUX_WIDTH
        double_blocks = [None] * 20
        single_blocks = [None] * 40

    stranger = SimpleNamespace(model=SimpleNamespace(diffusion_model=Other()))
    with pytest.raises(BaseModelMismatch, match="Other"):
        apply_identity(stranger, loaded, pulid_identity(), ApplyOptions())


def test_a_block_without_options_names_the_version(model: Any, loaded: LoadedAdapter) -> None:
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions())
    image = torch.zeros(1, 12, FLUX_WIDTH)
    with pytest.raises(HostTooOld, match=r"0\.3\.60"):
        _slots(patched)["double_block", 0](
            {"img": image}, {"original_block": lambda args: {"img": image, "txt": image}}
        )


def test_nothing_is_read_back(model: Any, loaded: LoadedAdapter) -> None:
    """Five operations for each of 20 places, and the split of ten single blocks; no value goes to the host."""
    patched = apply_identity(model, loaded, pulid_identity(), ApplyOptions())
    sample_flux(patched, steps=1)
    base, counted = (count_calls(lambda m=m: sample_flux(m, steps=1)) for m in (model, patched))
    assert counted.compute - base.compute <= 20 * 5 + 10
    assert counted.synchronisations == base.synchronisations


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, model: Any, dtype: torch.dtype) -> None:
    """The weights of the file and the model may differ in dtype."""
    stored = LoadedAdapter(registry.load(write(tmp_path / "half.safetensors", flux_shapes(), torch.float16)))
    result = sample_flux(apply_identity(tiny_flux(dtype=dtype), stored, pulid_identity(), ApplyOptions()), steps=1)
    assert torch.isfinite(result).all()
    reference = sample_flux(apply_identity(model, stored, pulid_identity(), ApplyOptions()), steps=1)
    assert (result.float() - reference).abs().mean() < 0.1 * reference.abs().mean()
