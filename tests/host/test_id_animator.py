"""ID-Animator on the real UNet: layers, frames, strengths by frame, motion layers of ours and of another pack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from host_inprocess import sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import BaseModelMismatch
from likeness_pack.adapters.families.id_animator.motion import MotionNetwork, read_motion
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.align import crop_faces
from likeness_pack.faces.errors import LikenessError
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject.aligned_pictures import encode_aligned
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.frame_strength import frame_strengths
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.managed import ManagedNetwork
from likeness_pack.inject.motion import apply_motion
from likeness_pack.nodes.id_animator import LikenessFrameStrength
from module_folders import ModuleFolders
from PIL import Image
from tiny_portraits import aligned_identity, write_animator, write_motion
from torch import Tensor
from unet_calls import call_unet, load_model, patched_calls

FRAMES = 4
NO_LORA = {"lora_strength": 0.0}


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SD1.5 of real layout."""
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """ID-Animator for it, read through the registry."""
    path = module_folders.mktemp("animator") / "any.ckpt"
    write_animator(path)
    return LoadedAdapter(registry.load(path))


@pytest.fixture(scope="module")
def motion(module_folders: ModuleFolders) -> ManagedNetwork:
    """A motion module for it."""
    path = module_folders.mktemp("motion") / "mm.ckpt"
    write_motion(path)
    return ManagedNetwork(read_motion(path)[0])


def forward(model: Any, rows: tuple[int, ...] = (1, 0), frames: int = FRAMES, **options: Any) -> Tensor:
    """One forward pass through the model's wrappers, as the sampler makes it; (rows * frames, 4, 8, 8)."""
    load_model(model)
    generator = torch.Generator().manual_seed(7)
    latent = torch.randn(frames, 4, 8, 8, generator=generator).repeat(len(rows), 1, 1, 1)
    context = {row: torch.randn(1, 11, 768, generator=generator) for row in (0, 1)}
    text = torch.cat([context[row].expand(frames, -1, -1) for row in rows])
    patches = {**model.model_options["transformer_options"], "cond_or_uncond": list(rows), **options}
    patches["sigmas"] = torch.full((1,), 3.0)

    def unet(x: Tensor, t: Tensor, transformer_options: dict[str, Any], **rest: Any) -> Tensor:
        return model.model.diffusion_model(x, timesteps=t, context=text, transformer_options=transformer_options)

    call = {"input": latent, "timestep": torch.full((len(latent),), 501.0), "c": {"transformer_options": patches}}
    wrapper = model.model_options.get("model_function_wrapper")
    with torch.inference_mode():
        if wrapper is None:
            return unet(call["input"], call["timestep"], patches)
        return wrapper(unet, {**call, "cond_or_uncond": list(rows)})


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (0, 0, 1)])
def test_every_layer_is_called(model: Any, loaded: LoadedAdapter, rows: tuple[int, ...]) -> None:
    patched = apply_identity(model, loaded, aligned_identity(), ApplyOptions())
    assert patched_calls(patched, "SD15", rows) == 16


def test_without_the_node_nothing_is_left(model: Any, loaded: LoadedAdapter) -> None:
    before = sample(model)
    patched = apply_identity(model, loaded, aligned_identity(), ApplyOptions())
    assert (sample(patched) - before).abs().max() > 1e-3
    assert torch.equal(sample(model), before)
    off = apply_identity(model, loaded, aligned_identity(), ApplyOptions(strength=0.0, **NO_LORA))
    assert torch.equal(sample(off), before)


def test_the_lora_acts_whatever_the_strength_is(model: Any, loaded: LoadedAdapter) -> None:
    """At strength 0 the model is the base with up @ down added to attn2, and to attn2 only."""
    patched = apply_identity(model, loaded, aligned_identity(), ApplyOptions(strength=0.0))
    assert len(patched.patches) == 16 * 4
    assert all(".attn2." in name for name in patched.patches)
    by_hand = model.clone()
    ends = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    layers = unet_layers(model)
    by_hand.add_patches(
        {
            f"{layers[index // 2].weights}.attn2.{ends[role]}.weight": ("diff", (change.up @ change.down,))
            for (index, role), change in loaded.adapter.low_rank().items()  # type: ignore[attr-defined]
        }
    )
    torch.testing.assert_close(sample(patched), sample(by_hand), atol=1e-5, rtol=1e-4)


def test_each_frame_gets_the_same_face(model: Any, loaded: LoadedAdapter) -> None:
    """A batch of frames gives what each frame gives alone, in both chunks."""
    patched = apply_identity(model, loaded, aligned_identity(), ApplyOptions(strength=0.8))
    together = forward(patched)
    plain = forward(model)
    assert together.shape[0] == 2 * FRAMES
    assert all((together[row] - plain[row]).abs().max() > 1e-3 for row in range(2 * FRAMES))


@pytest.mark.parametrize("text", ["0: 1.4, 3: 0", "0, 0.7, 0, 1.4"])
def test_every_frame_has_its_own_strength(model: Any, loaded: LoadedAdapter, text: str) -> None:
    """Each frame equals that frame of a clip with its strength everywhere; strength 0 is the plain model's frame."""
    result = LikenessFrameStrength().make(text, FRAMES, "linear")["result"]
    options = ApplyOptions(strength=result[1], mask=result[0], **NO_LORA)
    scheduled = forward(apply_identity(model, loaded, aligned_identity(), options))
    plain = forward(model)
    for frame, value in enumerate(frame_strengths(text, FRAMES).values):
        constant = ApplyOptions(strength=value, **NO_LORA)
        whole = forward(apply_identity(model, loaded, aligned_identity(), constant))
        for row in (frame, FRAMES + frame):
            torch.testing.assert_close(scheduled[row], whole[row], atol=2e-5, rtol=1e-4)
            if value == 0:
                torch.testing.assert_close(scheduled[row], plain[row], atol=1e-6, rtol=1e-6)
            else:
                assert (scheduled[row] - plain[row]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["context_window", "ad_params"])
def test_context_windows_take_their_own_strengths(model: Any, loaded: LoadedAdapter, name: str) -> None:
    """A window of frames 1, 2 and 5 of eight; the host's own windows, and AnimateDiff-Evolved's."""
    window = [1, 2, 5]
    strengths = frame_strengths("0: 0, -1: 1", 8)
    options = ApplyOptions(mask=strengths.mask(), **NO_LORA)
    value = {"sub_idxs": window} if name == "ad_params" else SimpleNamespace(index_list=window)
    got = forward(apply_identity(model, loaded, aligned_identity(), options), frames=3, **{name: value})
    for row, frame in enumerate(window):
        constant = ApplyOptions(strength=strengths.values[frame], **NO_LORA)
        whole = forward(apply_identity(model, loaded, aligned_identity(), constant), frames=3)
        torch.testing.assert_close(got[row], whole[row], atol=2e-5, rtol=1e-4)


def test_outside_its_mask_the_term_is_exactly_zero(model: Any, loaded: LoadedAdapter) -> None:
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    patched = apply_identity(model, loaded, aligned_identity(), ApplyOptions(mask=mask, **NO_LORA))
    layer = unet_layers(model)[0]
    slot = patched.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key]
    q, k, v = torch.randn(8, 64, layer.width), torch.randn(8, 7, layer.width), torch.randn(8, 7, layer.width)
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0], "original_shape": [8, 4, 8, 8]}
    free = apply_identity(model, loaded, aligned_identity(), ApplyOptions(strength=0.0, **NO_LORA))
    text = free.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key](q, k, v, extra)
    added = (slot(q, k, v, extra) - text).view(8, 8, 8, -1)
    assert added[:, :, :4].abs().max() == 0
    assert added[:, :, 4:].abs().amin(dim=(1, 2, 3)).shape == (8,)
    assert added[:, :, 4:].abs().max() > 1e-3


@pytest.mark.parametrize(("people", "limit"), [(1, 1.10), (2, 1.15), (4, 1.25)])
def test_a_step_costs_little_more(model: Any, loaded: LoadedAdapter, people: int, limit: float) -> None:
    """Operations of a step with frames and strengths by frame; nothing is read back."""
    state = CallState()

    def step(of: Any) -> Any:
        call_unet(of, "SD15", (1, 0), state, per_chunk=FRAMES)
        return count_calls(lambda: call_unet(of, "SD15", (1, 0), state, per_chunk=FRAMES, loaded=True))

    patched = model
    for number in range(people):
        mask = frame_strengths("0: 1, -1: 0.2", FRAMES).mask()
        patched = apply_identity(patched, loaded, aligned_identity(number), ApplyOptions(mask=mask, **NO_LORA))
    base, counted = step(model), step(patched)
    assert counted.compute <= limit * base.compute, f"{counted.compute} against {base.compute}"
    assert counted.synchronisations == base.synchronisations
    assert counted.copies == base.copies


class ClipVision:
    """Gives each picture's own pixels back as patches, so that a test sees what the image encoder saw."""

    image_size = 224
    load_device = torch.device("cpu")

    def __init__(self) -> None:
        self.patcher = ManagedNetwork(torch.nn.Linear(1, 1)).patcher

    def encode_image(self, images: Tensor, **options: Any) -> dict[str, Tensor]:
        return {"penultimate_hidden_states": images.flatten(1, 2), "image_embeds": images.flatten(1)[:, :8]}

    def model(self, pixel_values: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return pixel_values, pixel_values.movedim(1, -1).flatten(1, 2)


def test_clip_sees_the_official_soft_crop() -> None:
    """112 pixels aligned, made 224 by Pillow's bicubic filter; a photo without a face keeps its place as zeros; the
    unconditional picture is zero after normalisation.
    """
    photos = torch.rand(2, 300, 280, 3)
    points = torch.tensor([[[90.0, 120], [170, 118], [130, 160], [98, 200], [165, 198]]])
    face = Faces(torch.tensor([[60.0, 60, 200, 240]]), points, torch.ones(1))
    batch = FaceBatch((face, Faces.none()), (300, 280), "user")
    identity = encode_aligned(ClipVision(), photos, batch, on_missing_face="keep")
    crop = crop_faces(photos, torch.tensor([0]), points, "arcface", 112)[0]
    small = Image.fromarray((crop * 255).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy())
    wanted = np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    tokens = identity.features["image_tokens"]
    assert tokens.shape == (2, 224 * 224, 3)
    assert np.array_equal(tokens[0].view(224, 224, 3).numpy(), wanted)
    assert tokens[1].abs().max() == identity.features["image_tokens_zero"].abs().max() == 0


@contextmanager
def foreign_motion(model: Any, network: MotionNetwork, frames: int) -> Iterator[None]:
    """Motion layers as another pack injects them: put into the UNet's own lists while it samples, then taken out."""

    class Frames(torch.nn.Module):
        def __init__(self, layer: Callable[..., Tensor]) -> None:
            super().__init__()
            self.run = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x, frames)

    unet, layers = model.model.diffusion_model, network.layers()
    taken: list[tuple[Any, int]] = []
    for name, layer in layers.items():
        if name.startswith("mid_block"):
            block, place = unet.middle_block, 2
        else:
            side, level, _, number = name.split(".")
            index = 3 * int(level) + int(number)
            block = unet.input_blocks[1 + index] if side == "down_blocks" else unet.output_blocks[index]
            place = len(block) - (type(block[-1]).__name__ == "Upsample")
        block.insert(place, Frames(layer))
        taken.append((block, place))
    try:
        yield
    finally:
        for block, place in taken:
            del block[place]


def test_our_motion_layers_stand_where_another_pack_puts_them(
    model: Any, loaded: LoadedAdapter, motion: ManagedNetwork
) -> None:
    """ID-Animator on a model that another pack moves gives what it gives with ours."""
    options = ApplyOptions(strength=0.8)
    ours = forward(apply_identity(apply_motion(model, motion, linear_betas=False), loaded, aligned_identity(), options))
    patched = apply_identity(model, loaded, aligned_identity(), options)
    still = forward(patched)
    assert isinstance(motion.network, MotionNetwork)
    with foreign_motion(model, motion.network, FRAMES):
        theirs = forward(patched)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours - still).abs().max() > 1e-3


def test_motion_leaves_no_trace(model: Any, motion: ManagedNetwork) -> None:
    """No hook, no module, no schedule stays; frames influence each other only through it."""
    before, names = forward(model), list(model.model.state_dict())
    moving = apply_motion(model, motion)
    moved = forward(moving)
    assert (moved - before).abs().max() > 1e-3
    assert torch.equal(forward(model), before)
    assert list(model.model.state_dict()) == names
    assert not any(part._forward_hooks for part in model.model.modules())
    assert "model_sampling" in moving.object_patches
    assert "model_sampling" not in model.object_patches


def test_a_failing_pass_takes_its_hooks_along(model: Any, motion: ManagedNetwork) -> None:
    """Thirty-three frames are one too many; afterwards the model is clean."""
    with pytest.raises(LikenessError, match="at most 32 frames, found a batch of 33"):
        forward(apply_motion(model, motion), rows=(0,), frames=33)
    assert not any(part._forward_hooks for part in model.model.modules())


def test_chunks_are_clips(model: Any, motion: ManagedNetwork) -> None:
    """Positive and negative rows are two clips: together or alone, the same numbers."""
    moving = apply_motion(model, motion)
    both = forward(moving, rows=(1, 0))
    torch.testing.assert_close(both[:FRAMES], forward(moving, rows=(1,)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[FRAMES:], forward(moving, rows=(0,)), atol=1e-5, rtol=1e-4)


def test_the_noise_schedule_is_the_linear_one(model: Any, motion: ManagedNetwork) -> None:
    """Sigmas of betas from 0.00085 to 0.012 in even steps, which the plain model's are not."""
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    alphas = torch.cumprod(1 - betas, 0)
    expected = ((1 - alphas) / alphas).sqrt().float()
    moving = apply_motion(model, motion)
    torch.testing.assert_close(moving.get_model_object("model_sampling").sigmas.cpu(), expected, atol=1e-4, rtol=1e-4)
    assert math.isclose(float(model.get_model_object("model_sampling").sigmas[-1]), 14.6, abs_tol=0.1)


def test_sixteen_frames_sample(model: Any, loaded: LoadedAdapter, motion: ManagedNetwork) -> None:
    """The whole way of the workflow: motion, identity, strengths by frame, a sampler."""
    strengths = frame_strengths("0: 1, -1: 0.4", 16)
    options = ApplyOptions(strength=0.8 * strengths.peak, mask=strengths.mask())
    moving = apply_motion(model, motion)
    clip = sample(apply_identity(moving, loaded, aligned_identity(), options), batch=16)
    assert clip.shape == (16, 4, 8, 8)
    assert torch.isfinite(clip).all()
    assert (clip - sample(moving, batch=16)).abs().max() > 1e-3


def test_another_base_model_is_refused(loaded: LoadedAdapter, motion: ManagedNetwork) -> None:
    other = tiny_model("SDXL")
    with pytest.raises(BaseModelMismatch, match="12 input and 12 output blocks, found 9 and 9"):
        apply_motion(other, motion)
    with pytest.raises(BaseModelMismatch, match="16 cross-attention layers"):
        apply_identity(other, loaded, aligned_identity(), ApplyOptions())
    with pytest.raises(BaseModelMismatch, match="32 channels at down_blocks.0"):
        apply_motion(tiny_model("SD15", model_channels=64), motion)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(loaded: LoadedAdapter, motion: ManagedNetwork, dtype: torch.dtype) -> None:
    half = apply_motion(tiny_model("SD15", dtype=dtype), motion)
    clip = sample(apply_identity(half, loaded, aligned_identity(), ApplyOptions()), steps=1, batch=2)
    assert torch.isfinite(clip).all()


def test_negative_rows_can_be_left_alone(model: Any, loaded: LoadedAdapter) -> None:
    options = ApplyOptions(tokens=TokenOptions(negative=False), **NO_LORA)
    got = call_unet(apply_identity(model, loaded, aligned_identity(), options), "SD15", (1, 0))
    torch.testing.assert_close(got[0], call_unet(model, "SD15", (1, 0))[0], atol=1e-6, rtol=1e-6)
