"""The emotion module on the host's HunyuanVideo: the numbers of training, zeros, masks, guidance and refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.adapters.errors import BaseModelMismatch, HostTooOld, MissingModelFile
from likeness_pack.adapters.families.avatar_emotion.layout import EmotionFacts
from likeness_pack.adapters.families.hunyuan_avatar.guidance import official_sigmas
from likeness_pack.adapters.families.hunyuan_avatar.layout import host_name
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject.avatar_emotion import EmotionOptions, apply_emotion, emotion_adapter, emotion_latents
from likeness_pack.inject.call_state import STATE_KEY, CallState
from likeness_pack.inject.host import folder_paths
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.training_places import BadPlace
from likeness_pack.nodes.avatar_emotion import LikenessApplyAvatarEmotion, LikenessSaveEmotionClip
from likeness_pack.training.avatar_clips import BadClip, ClipFolder, EmotionClip
from likeness_pack.training.avatar_dit import VideoDit
from likeness_pack.training.avatar_dit_sizes import DitSizes
from likeness_pack.training.avatar_emotion import (
    AvatarBase,
    emotion_after,
    fresh_network,
    save_emotion,
)
from likeness_pack.training.avatar_emotion import (
    EmotionOptions as TrainingOptions,
)
from module_folders import ModuleFolders
from tiny_avatar_emotion import filled
from tiny_hunyuan import (
    POOLED,
    TEXT,
    WIDTH,
    clip_noise,
    hunyuan_conditioning,
    need_hunyuan,
    run_guider,
    tiny_hunyuan,
)
from torch import Tensor

SIZES = DitSizes(WIDTH, 2, 4, 2, TEXT, POOLED, 16, (8, 12, 12))
OWN = TrainingOptions(inner=32, heads=2, emotion_width=32)
STEPS = 2


@pytest.fixture(scope="module")
def base() -> AvatarBase:
    """The transformer that training goes through."""
    return AvatarBase(filled(VideoDit(SIZES)))


@pytest.fixture(scope="module")
def model(base: AvatarBase) -> Any:
    """The host's own with the same weights."""
    need_hunyuan()
    made = tiny_hunyuan(SIZES.double, SIZES.single)
    weights = {host_name(name): tensor for name, tensor in base.dit.state_dict().items()}
    made.model.diffusion_model.load_state_dict(weights)
    return made


def written(folder: Path, base: AvatarBase, gate: float = 0.7) -> LoadedAdapter:
    """A file with open gates, loaded as any other."""
    network = fresh_network(OWN, base)
    for block in network.attentions:
        block.gate.weight.data.fill_(gate)
    path = folder / f"emotion_{gate}.safetensors"
    save_emotion(path, network, EmotionFacts(1, 1, 64))
    return LoadedAdapter(registry.load(path))


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders, base: AvatarBase) -> LoadedAdapter:
    return written(module_folders.mktemp("emotion"), base)


def picture(seed: int = 0) -> Tensor:
    """A latent (1, 16, 1, 6, 4) as the host's VAE gives it."""
    return torch.randn(1, 16, 1, 6, 4, generator=torch.Generator().manual_seed(seed))


def sampled(model: Any, cfg: float = 1.0, frames: int = 3) -> Tensor:
    samplers = __import__("comfy.samplers", fromlist=["CFGGuider"])
    guider = samplers.CFGGuider(model)
    guider.set_conds(hunyuan_conditioning(1), hunyuan_conditioning(2))
    guider.set_cfg(cfg)
    return run_guider(guider, clip_noise(frames, 4, 6), official_sigmas(STEPS))


def velocity(base: AvatarBase, x: Tensor, level: Tensor, seed: int, emotion: Tensor | None, network: Any) -> Tensor:
    """As training computes it."""
    states, other = hunyuan_conditioning(seed)[0]
    clip = EmotionClip("", x[0], x[0, :, :1], states[0], torch.ones(states.shape[1]), other["pooled_output"][0])
    return base.velocity(clip, x, level.view(1), None if emotion is None else emotion_after(network, emotion))


def by_training(base: AvatarBase, emotion: Tensor | None, cfg: float = 1.0, guided: bool = False) -> Tensor:
    """The sampler's loop over the transformer that training goes through."""
    network = fresh_network(OWN, base)
    for block in network.attentions:
        block.gate.weight.data.fill_(0.7)
    x, sigmas = clip_noise(3, 4, 6), official_sigmas(STEPS)
    with torch.no_grad():
        for step in range(STEPS):
            v = velocity(base, x, sigmas[step], 1, emotion, network)
            if cfg != 1.0:
                below = velocity(base, x, sigmas[step], 2, None if guided else emotion, network)
                v = below + cfg * (v - below)
            x = x + v * (sigmas[step + 1] - sigmas[step])
    return x


def check(model: Any, got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, model.model.process_latent_out(expected), atol=1e-4, rtol=1e-4)


def test_the_transformer_of_training_is_the_hosts(model: Any, base: AvatarBase) -> None:
    """The same file's weights under the official names give the same numbers."""
    check(model, sampled(model), by_training(base, None))


def test_the_emotion_is_that_of_training(model: Any, base: AvatarBase, loaded: LoadedAdapter) -> None:
    """On one row, on both rows of guidance, and on the positive rows alone."""
    emotion = model.model.process_latent_in(picture())[0]
    check(model, sampled(apply_emotion(model, loaded, picture())), by_training(base, emotion))
    check(model, sampled(apply_emotion(model, loaded, picture()), 3.0), by_training(base, emotion, 3.0))
    guided = apply_emotion(model, loaded, picture(), EmotionOptions(guided=True))
    check(model, sampled(guided, 3.0), by_training(base, emotion, 3.0, guided=True))
    assert (sampled(guided, 3.0) - sampled(model, 3.0)).abs().max() > 1e-2


def test_nothing_stays(model: Any, base: AvatarBase, loaded: LoadedAdapter, tmp_path: Path) -> None:
    """Strength 0, gates at 0, steps out of range, and the MODEL that came in: bit-equal."""
    before = sampled(model, 3.0)
    assert not torch.equal(sampled(apply_emotion(model, loaded, picture()), 3.0), before)
    for options in (EmotionOptions(strength=0.0), EmotionOptions(start_percent=1.0, end_percent=1.0)):
        assert torch.equal(sampled(apply_emotion(model, loaded, picture(), options), 3.0), before)
    closed = written(tmp_path, base, gate=0.0)
    assert torch.equal(sampled(apply_emotion(model, closed, picture()), 3.0), before)
    assert torch.equal(sampled(model, 3.0), before)


def test_twice_does_not_stack_and_two_emotions_do(model: Any, loaded: LoadedAdapter) -> None:
    once = apply_emotion(model, loaded, picture())
    assert torch.equal(sampled(apply_emotion(once, loaded, picture())), sampled(once))
    both, turned = (
        sampled(apply_emotion(apply_emotion(model, loaded, picture(a)), loaded, picture(b)))
        for a, b in ((0, 1), (1, 0))
    )
    torch.testing.assert_close(both, turned, atol=1e-4, rtol=1e-4)
    assert (both - sampled(once)).abs().max() > 1e-3


def _nothing(args: dict[str, Any]) -> dict[str, Any]:
    return dict(args)


def _behind_block(patched: Any, number: int, image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Tokens behind a block that adds nothing of its own, for the call of latents of ``shape``."""
    slot = patched.model_options["transformer_options"]["patches_replace"]["dit"][("double_block", number)]
    options = {STATE_KEY: CallState(shape), "cond_or_uncond": [0]}
    out = slot({"img": image, "txt": image, "transformer_options": options}, {"original_block": _nothing})
    found: Tensor = out["img"]
    return found


def test_outside_the_mask_and_before_the_video_nothing_is_added(model: Any, loaded: LoadedAdapter) -> None:
    """Tokens outside are the block's own to the last bit, those inside as without a mask, frame by frame."""
    shape, ahead = (1, 16, 3, 4, 6), 6
    image = torch.randn(1, ahead + 18, WIDTH, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(3, 4, 6)
    mask[1, :, :4] = 1
    mask[2] = 0.5
    masked, whole = (
        _behind_block(apply_emotion(model, loaded, picture(), EmotionOptions(mask=one)), 1, image, shape)
        for one in (mask, None)
    )
    weight = torch.cat([torch.zeros(ahead), torch.zeros(6), torch.tensor([1.0, 1, 0] * 2), torch.full((6,), 0.5)])
    assert torch.equal(masked[:, weight == 0], image[:, weight == 0])
    assert torch.equal(whole[:, :ahead], image[:, :ahead])
    torch.testing.assert_close(masked - image, (whole - image) * weight[:, None], atol=1e-6, rtol=1e-5)
    assert (whole - image)[:, ahead:].abs().amax(-1).min() > 1e-5
    assert torch.equal(
        _behind_block(apply_emotion(model, loaded, picture()), 3, image, shape)[:, :ahead], image[:, :ahead]
    )


def test_the_blocks_own_tokens_are_read_beside_another_patch(model: Any, loaded: LoadedAdapter) -> None:
    """What another node adds behind the same block stays, and does not change what is added here."""
    shape, image = (1, 16, 1, 4, 6), torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(6))
    other = model.clone()

    def adds(args: dict[str, Any], block: Any) -> dict[str, Any]:
        out = block["original_block"](args)
        return {**out, "img": out["img"] + 3.0}

    other.set_model_patch_replace(adds, "dit", "double_block", 1)
    alone, beside = (_behind_block(apply_emotion(one, loaded, picture()), 1, image, shape) for one in (model, other))
    torch.testing.assert_close(beside, alone + 3.0, atol=1e-6, rtol=1e-6)


def test_masks_follow_windows(model: Any, loaded: LoadedAdapter) -> None:
    """A window of the clip takes its own frames' masks."""
    mask = torch.zeros(5, 4, 6)
    mask[3] = 1
    patched = apply_emotion(model, loaded, picture(), EmotionOptions(mask=mask))
    slot = patched.model_options["transformer_options"]["patches_replace"]["dit"][("double_block", 1)]
    image = torch.randn(1, 12, WIDTH, generator=torch.Generator().manual_seed(7))

    class Window:
        index_list, total_frames = (3, 4), 5

    options = {STATE_KEY: CallState((1, 16, 2, 4, 6)), "cond_or_uncond": [0], "context_window": Window()}
    out = slot({"img": image, "txt": image, "transformer_options": options}, {"original_block": _nothing})
    changed = (out["img"] - image).abs().amax(-1)[0]
    assert (changed[:6] > 0).all() and not changed[6:].any()


# Refusals and the node


class PlainVae:
    """Keeps what it is given; latents are an eighth of it."""

    def encode(self, pictures: Tensor) -> Tensor:
        self.seen = tuple(pictures.shape)
        small = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8)
        return small.repeat(1, 6, 1, 1)[:, :16, None]


def test_without_a_trained_file_the_node_refuses(loaded: LoadedAdapter) -> None:
    """On every host, and before anything is encoded."""
    told = "train one with tools/train_avatar_emotion.py, since no trained file was ever published"
    with pytest.raises(MissingModelFile, match=f"found no adapter; {told}"):
        LikenessApplyAvatarEmotion().apply(None, None, torch.zeros(1, 8, 8, 3), 1.0, 0.0, 1.0, False)
    assert emotion_adapter(loaded) is loaded.adapter


def test_the_node_encodes_and_patches(model: Any, loaded: LoadedAdapter) -> None:
    vae, image = PlainVae(), torch.rand(1, 40, 80, 3, generator=torch.Generator().manual_seed(8))
    patched = LikenessApplyAvatarEmotion().apply(model, vae, image, 1.0, 0.0, 1.0, False, loaded)[0]
    assert vae.seen == (1, 48, 96, 3)
    expected = apply_emotion(model, loaded, emotion_latents(vae, image, 64))
    assert torch.equal(sampled(patched), sampled(expected))
    with pytest.raises(LikenessError, match="expected one picture, found 2; choose one picture of the batch"):
        emotion_latents(vae, image.expand(2, -1, -1, -1), 64)


def test_another_model_or_host_is_told(loaded: LoadedAdapter) -> None:
    if not engine().has_wrappers:
        with pytest.raises(HostTooOld, match=r"expected ComfyUI 0\.3\.64 or newer"):
            apply_emotion(tiny_model("SD15"), loaded, picture())
        return
    expected = f"expected a HunyuanVideo model of width {WIDTH} with 4 double blocks"
    with pytest.raises(BaseModelMismatch, match=f"{expected}, found the model"):
        apply_emotion(tiny_model("SD15"), loaded, picture())
    with pytest.raises(BaseModelMismatch, match=f"{expected}, found width {WIDTH} with 6 double blocks"):
        apply_emotion(tiny_hunyuan(6, 1), loaded, picture())


# Clips to train on


def saved(name: str = "one", **given: Any) -> str:
    states, other = hunyuan_conditioning(1)[0]
    usual: dict[str, Any] = {
        "video": {"samples": clip_noise(2, 4, 6)},
        "positive": [[states, other]],
        "vae": PlainVae(),
        "emotion_image": torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(9)),
        "picture_size": 64,
        "folder": "emotion clips",
        "name": name,
    }
    report: str = LikenessSaveEmotionClip().save(**{**usual, **given})["result"][0]
    return report


@pytest.fixture
def clips() -> Iterator[Path]:
    """The folder that the node writes to."""
    engine()
    folder = Path(folder_paths().get_input_directory()) / "emotion clips"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_saved_clip_is_what_training_reads(clips: Path) -> None:
    """Latents in the transformer's scale; sound cut or filled with silence to the clip's length."""
    sound = torch.rand(2, 3, 10, 5, 384, generator=torch.Generator().manual_seed(10))
    features = AudioFeatures("hunyuan_avatar", sound, 25.0, 1920, (0.0, 0.0), ("0" * 64,) * 2)
    report = saved(character={"samples": clip_noise(3, 4, 6)}, audio=features, mask=torch.ones(32, 48))
    assert report.startswith("emotion clips/one.safetensors: latents (16, 2, 4, 6)")
    clip = ClipFolder(clips).clip(0)
    torch.testing.assert_close(clip.latents, clip_noise(2, 4, 6)[0] * 0.476986)
    assert clip.emotion.shape == (16, 1, 8, 8) and clip.audio is not None and clip.audio.shape == (5, 10, 5, 384)
    assert torch.equal(clip.audio[:3], sound[0]) and not clip.audio[3:].any()
    assert clip.face_mask is not None and clip.face_mask.shape == (1, 4, 6)
    assert torch.equal(clip.text_states, hunyuan_conditioning(1)[0][0][0]) and clip.text_mask.sum() == 9


def test_clips_that_cannot_be_used_are_not_written(clips: Path) -> None:
    with pytest.raises(BadClip, match="even sides"):
        saved(video={"samples": clip_noise(2, 5, 6)})
    with pytest.raises(LikenessError, match="connect a prompt from 'Encode Avatar Prompt'"):
        saved(positive=hunyuan_conditioning(1) * 2)
    for name, folder in (("../up", "emotion clips"), ("", "emotion clips"), ("one", "../up")):
        with pytest.raises(BadPlace):
            saved(name, folder=folder)
    assert not clips.exists()
    saved()
    with pytest.raises(BadPlace, match="a file of that name; choose another name"):
        saved()
