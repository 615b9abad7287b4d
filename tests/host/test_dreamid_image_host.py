"""DreamID in the host: what the trainer's network computes, the host's SwapNet samples; refusals; crops pasted back."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine
from likeness_pack.adapters import registry
from likeness_pack.adapters.encoders.topofr.arch import IResNet, IResNetConfig
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, MissingModelFile, PatchIncomplete
from likeness_pack.adapters.families.dreamid.landmark_picture import landmark_pictures
from likeness_pack.adapters.families.dreamid.layout import DreamIdFacts, timesteps_of
from likeness_pack.adapters.families.lafr.one_step import alpha_bar, clean_latent
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.faces.errors import BadImage, FaceChoice, LikenessError
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject.dreamid import SELF, SwapOptions, apply_dreamid, dreamid_of, sigmas_of
from likeness_pack.inject.forward_guard import ForwardGuard
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.nodes.crops import LikenessCropFaces, LikenessPasteFaces
from likeness_pack.nodes.dreamid import LikenessApplyDreamID, LikenessDreamIDLandmarks
from likeness_pack.training.drawn_faces.draw import draw
from likeness_pack.training.drawn_faces.parameters import sample_attributes, sample_identities
from likeness_pack.training.dreamid import save_model
from likeness_pack.training.dreamid_build import BuildOptions, FacePhoto, build_triplets
from likeness_pack.training.dreamid_losses import renoised
from likeness_pack.training.dreamid_unet import Conditions, SwapModel, random_base, started
from likeness_pack.training.dreamid_unet import fill_seeded as fill_model
from module_folders import ModuleFolders
from safetensors.torch import save_file
from small_vae import small_vae, small_vae_tensors
from torch import Tensor
from torch.nn import functional

LEVELS, CONTEXT, EMBEDDED, HEADS, SCALE = (32, 32, 64, 64), 24, 16, 16, 0.18215
FACTS = DreamIdFacts(face_encoder="drawn", base="test", head_channels=HEADS, steps=1, triplets=1, size=64)
TEXT = torch.randn(1, 5, CONTEXT, generator=torch.Generator().manual_seed(8))
PROMPT = [[TEXT, {}]]


class Trained:
    """A stand-in file, the network it was written from, and the host's VAE."""

    def __init__(self, folder: Path, facts: DreamIdFacts) -> None:
        engine()
        self.facts = facts
        self.model = started(random_base(LEVELS, CONTEXT, HEADS, 1), HEADS, EMBEDDED, 3, 2)
        # Nothing may stay at zero: neither the target's channels nor the pose.
        with torch.no_grad():
            for number, unet in enumerate((self.model.swapnet, self.model.facenet, self.model.added)):
                fill_model(unet, 3 + number)
        path = folder / "standin.safetensors"
        save_model(path, self.model, facts, torch.float32)
        self.loaded = LoadedAdapter(registry.load(path, kind="adapter"))
        self.vae = small_vae()

    def apply(self, count: int = 1, marks: bool = True, options: SwapOptions | None = None, **other: Any) -> Any:
        given = {
            "targets": pictures(count),
            "source": pictures(1, 9),
            "positive": PROMPT,
            "identity": person(),
            **other,
        }
        drawn = landmarks(count) if marks else None
        return apply_dreamid(self.loaded, self.vae, **given, landmarks=drawn, options=options)

    def conditions(self, count: int = 1, marks: bool = True) -> Conditions:
        """The same for the trainer's network."""
        with torch.inference_mode():
            target, source = (self.vae.encode(one) * SCALE for one in (pictures(count), pictures(1, 9)))
        drawn = landmarks(count).movedim(-1, 1)
        embedding = functional.normalize(person().features[EMBEDDING], dim=1)
        rows = (source.clone().expand(count, -1, -1, -1), embedding.expand(count, -1))
        return Conditions(target.clone(), *rows, drawn if marks else drawn * 0, TEXT)


@pytest.fixture(scope="module", params=["eps", "v"])
def trained(request: Any, module_folders: ModuleFolders) -> Trained:
    return Trained(module_folders.mktemp("dreamid"), replace(FACTS, prediction=request.param))


@pytest.fixture(scope="module")
def one(module_folders: ModuleFolders) -> Trained:
    return Trained(module_folders.mktemp("dreamid"), replace(FACTS, prediction="v"))


def pictures(count: int, seed: int = 5) -> Tensor:
    return torch.rand(count, 64, 128, 3, generator=torch.Generator().manual_seed(seed))


def landmarks(count: int) -> Tensor:
    points = torch.rand(count, 5, 2, generator=torch.Generator().manual_seed(6)) * 60
    return landmark_pictures(points, 64, 64, 128).movedim(1, -1)


def person(encoder: str = "drawn") -> Identity:
    return Identity(encoder, {EMBEDDING: torch.randn(1, EMBEDDED, generator=torch.Generator().manual_seed(7))})


def noise_like(samples: Tensor, seed: int = 11) -> Tensor:
    return torch.randn(samples.shape, generator=torch.Generator().manual_seed(seed))


def sampled(swap: Any, noise: Tensor | None = None, cfg: float = 1.0, negative: Any = PROMPT) -> Tensor:
    """What SamplerCustom does with euler; the latent as the host gives it."""
    noise = noise_like(swap.samples) if noise is None else noise
    sampler = importlib.import_module("comfy.samplers").sampler_object("euler")
    run = importlib.import_module("comfy.sample").sample_custom
    with torch.inference_mode():
        found: Tensor = run(
            swap.model, noise, cfg, sampler, swap.sigmas, PROMPT, negative, swap.samples, disable_pbar=True, seed=1
        )
    return found.clone()


@torch.no_grad()
def expected(trained: Trained, conditions: Conditions, timesteps: tuple[int, ...], noise: Tensor) -> Tensor:
    """The paper's step (and the deterministic one between steps), on the trainer's network; unscaled latents."""
    model: SwapModel = trained.model
    noisy = clean = noise
    for number, timestep in enumerate(timesteps):
        times = torch.full((len(noise),), timestep)
        predicted = model(noisy, times, conditions)
        clean = clean_latent(noisy, predicted, alpha_bar(timestep), trained.facts.prediction)
        if number + 1 < len(timesteps):
            noisy = renoised(clean, noisy, timestep, timesteps[number + 1])
    return clean / SCALE


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (4, 2)])
def test_the_host_samples_what_the_trainer_computes(trained: Trained, steps: int, count: int) -> None:
    """Two implementations of two UNets, attention, tokens, pose and step agree."""
    swap = trained.apply(count, options=SwapOptions(steps))
    found = sampled(swap)
    wanted = expected(trained, trained.conditions(count), timesteps_of(steps), noise_like(swap.samples))
    assert found.shape == (count, 4, 8, 16)
    # An eps model divides by sqrt(abar_999) = 0.068, so rounding of float32 is multiplied by 15.
    scale = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) < 2e-4 * scale


def test_the_pose_guider_is_left_out_without_landmarks(one: Trained) -> None:
    swap = one.apply(marks=False)
    conditions, guider = one.conditions(), one.model.added.pose_guider
    kept = guider.forward
    guider.forward = lambda picture: torch.zeros(1)  # type: ignore[method-assign]
    try:
        wanted = expected(one, conditions, (999,), noise_like(swap.samples))
    finally:
        guider.forward = kept  # type: ignore[method-assign]
    torch.testing.assert_close(sampled(swap), wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_noise_levels_are_those_of_the_timesteps(one: Trained) -> None:
    swap = one.apply(options=SwapOptions(4))
    sampling = swap.model.get_model_object("model_sampling")
    assert sampling.timestep(swap.sigmas[:4]).tolist() == [999, 749, 499, 249]
    assert float(swap.sigmas[0]) == pytest.approx(14.6146, abs=1e-3)
    assert float(swap.sigmas[4]) == 0.0
    assert torch.equal(one.apply().sigmas, sigmas_of(swap.model, (999,))), "0 steps are the file's own"


def test_every_condition_acts(one: Trained) -> None:
    plain = sampled(one.apply())
    changed = {
        "target": one.apply(targets=pictures(1, 21)),
        "source": one.apply(source=pictures(1, 22)),
        "prompt": one.apply(positive=[[TEXT + 1, {}]]),
        "identity": one.apply(identity=Identity("drawn", {EMBEDDING: torch.ones(1, EMBEDDED)})),
        "no tokens": one.apply(options=SwapOptions(id_strength=0.0)),
        "half pose": one.apply(options=SwapOptions(pose_strength=0.5)),
        "no pose": one.apply(marks=False),
    }
    for name, swap in changed.items():
        assert not torch.allclose(sampled(swap), plain, atol=1e-3), name
    assert torch.equal(sampled(one.apply()), plain), "the same again gives the same bits"
    off = sampled(one.apply(options=SwapOptions(pose_strength=0.0)))
    assert torch.equal(off, sampled(changed["no pose"])), "strength 0 is the node's input removed"


def test_pictures_of_a_batch_do_not_touch_each_other(one: Trained) -> None:
    swap = one.apply(2)
    noise = noise_like(swap.samples)
    both = sampled(swap, noise)
    marks = landmarks(2)
    for number in range(2):
        alone = apply_dreamid(
            one.loaded, one.vae, pictures(2)[number : number + 1], pictures(1, 9), PROMPT, person(),
            marks[number : number + 1],
        )  # fmt: skip
        found = sampled(alone, noise[number : number + 1])
        torch.testing.assert_close(found, both[number : number + 1], atol=1e-3, rtol=1e-4)


def test_guidance_sees_two_rows_that_get_the_same(one: Trained) -> None:
    """With one prompt on both sides, guidance of any strength changes nothing but rounding."""
    swap = one.apply(2)
    other = [[TEXT.clone(), {}]]
    torch.testing.assert_close(sampled(swap, cfg=3.0, negative=other), sampled(swap), atol=2e-3, rtol=1e-3)


def test_all_layers_are_counted_and_a_thief_is_named(one: Trained) -> None:
    swap = one.apply()
    guard = swap.model.model_options["model_function_wrapper"]
    assert isinstance(guard, ForwardGuard)
    assert guard.expected == {SELF: 16, "attn2": 16, "dreamid pose": 1}
    swap.model.model_options["transformer_options"]["patches"]["attn1_patch"].clear()
    with pytest.raises(PatchIncomplete, match="all 16 attn1 layers"):
        sampled(swap)


def test_applying_again_stacks_nothing_and_loads_the_unets_once(one: Trained) -> None:
    first, second = one.apply(), one.apply()
    assert first.model.model is second.model.model
    patches = second.model.model_options["transformer_options"]["patches"]
    assert [len(patches[name]) for name in ("attn1_patch", "input_block_patch")] == [1, 1]
    assert not first.model.model.state_dict().keys() ^ second.model.model.state_dict().keys()


def test_facenet_sees_a_source_once(one: Trained) -> None:
    """For as long as a model has its tokens; another source or another prompt is seen anew."""
    full, half = (one.apply(options=SwapOptions(id_strength=strength)) for strength in (1.0, 0.5))
    others = one.apply(source=pictures(1, 22)), one.apply(positive=[[TEXT + 1, {}]])
    patches = [
        swap.model.model_options["transformer_options"]["patches"]["attn1_patch"][0] for swap in (full, half, *others)
    ]
    assert patches[0] is patches[1] and len({id(patch) for patch in patches}) == 3
    assert not torch.equal(sampled(full), sampled(half))


def test_without_a_file_it_says_that_none_was_ever_published(one: Trained) -> None:
    with pytest.raises(MissingModelFile) as refused:
        apply_dreamid(None, one.vae, pictures(1), pictures(1), PROMPT, person())
    assert str(refused.value).count("no weights of DreamID were ever published") == 1
    assert "\n" not in str(refused.value)
    with pytest.raises(MissingModelFile, match="tools/train_dreamid.py"):
        LikenessApplyDreamID().apply(one.vae, pictures(1), pictures(1), PROMPT, person(), 0, 1.0, 1.0)
    assert dreamid_of(one.loaded) is one.loaded.adapter


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"source": pictures(2)}, BadImage, "one picture"),
        ({"targets": torch.rand(1, 60, 64, 3)}, BadImage, "multiple of 64"),
        ({"source": torch.rand(1, 64, 70, 3)}, BadImage, "DreamID source"),
        ({"positive": [[torch.zeros(1, 4, 7), {}]]}, BaseModelMismatch, "width 24"),
        ({"positive": PROMPT * 2}, BaseModelMismatch, "2 parts"),
        ({"identity": person("arcface_buffalo_l")}, EncoderMismatch, "encoder drawn"),
    ],
)
def test_what_does_not_fit_is_refused(one: Trained, given: dict[str, Any], error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        one.apply(**given)


def test_landmarks_that_do_not_fit_are_refused(one: Trained) -> None:
    with pytest.raises(LikenessError, match="for each of the 2 targets"):
        apply_dreamid(one.loaded, one.vae, pictures(2), pictures(1), PROMPT, person(), landmarks(3))
    with pytest.raises(BadImage, match="of the targets' size, 128 x 64"):
        apply_dreamid(one.loaded, one.vae, pictures(1), pictures(1), PROMPT, person(), torch.zeros(1, 64, 64, 3))


def test_another_latent_is_refused(one: Trained) -> None:
    swap = replace(one.apply(), samples=torch.zeros(1, 4, 16, 16))
    with pytest.raises(BadImage, match="sample the latent that 'Apply DreamID' gives"):
        sampled(swap)
    with pytest.raises(BadImage, match="each of the 3 pictures"):
        sampled(replace(one.apply(2), samples=torch.zeros(3, 4, 8, 16)))


def test_crops_are_swapped_and_pasted_back(one: Trained) -> None:
    """From a picture with two faces through the nodes and back: only the crops' places change."""
    points = torch.tensor([[[60.0, 60.0], [90.0, 60.0], [75.0, 78.0], [63.0, 95.0], [87.0, 95.0]]])
    points = torch.cat([points, points + torch.tensor([150.0, 10.0])])
    boxes = torch.cat([points.amin(1) - 20, points.amax(1) + 20], dim=1)
    images = torch.rand(1, 192, 320, 3, generator=torch.Generator().manual_seed(4))
    faces = FaceBatch((Faces(boxes, points, torch.ones(2)),), (192, 320), "test")
    crops, cut, count = LikenessCropFaces().crop(images, faces, 128, "ffhq_512")
    drawn = LikenessDreamIDLandmarks().draw(images, cut, "5")["result"][0]
    assert drawn.shape == (2, 128, 128, 3)
    assert float(drawn[0, 54:68, 40:56].max()) > 0.5, "the left eye lies where the template has it"
    result = LikenessApplyDreamID().apply(
        one.vae, crops, pictures(1), PROMPT, person(), 1, 1.0, 1.0, one.loaded, drawn
    )  # fmt: skip
    model, latent, sigmas, report = result["result"]
    assert "targets: 2" in report
    assert "cinematic full head portrait" in report
    swap = replace(one.apply(2), model=model, samples=latent["samples"], sigmas=sigmas)
    with torch.inference_mode():
        swapped = one.vae.decode(sampled(swap))
    (pasted,) = LikenessPasteFaces().paste(images, cut, swapped.clone(), 1.0)
    changed = (pasted != images).any(-1)
    assert changed[0, 60:96, 60:90].any()
    assert changed[0, 70:106, 210:240].any()
    assert not changed[0, 185:].any()
    assert count == 2


def test_faces_that_were_not_cut_out_are_refused() -> None:
    faces = FaceBatch((Faces.none(),), (64, 64), "test")
    with pytest.raises(FaceChoice, match="connect the faces of 'Crop Faces'"):
        LikenessDreamIDLandmarks().draw(pictures(1), faces, "5")


class Command:
    """Everything that the training command reads, small and on disk."""

    def __init__(self, folder: Path) -> None:
        build = BuildOptions(sharpness=0.0, pose=9.0)
        generator = torch.Generator().manual_seed(2)
        people, states = sample_identities(2, generator), sample_attributes(4, generator)

        def photo(name: str, person: int, state: int) -> FacePhoto:
            drawn = draw(people.rows([person]), states.rows([state]), 64)
            points = drawn.landmarks5[0]
            return FacePhoto(name, drawn.images[0].movedim(-1, 0), points, points, people.values[person] - 0.5)

        rows = {"a/0": (0, 0), "a/1": (0, 1), "b/0": (1, 2)}
        persons = {name: [photo(one, *rows[one]) for one in rows if one[0] == name] for name in "ab"}

        def proxy(truth: FacePhoto, other: FacePhoto) -> Tensor:
            return photo("", rows[other.name][0], rows[truth.name][1]).picture

        def look(name: str, picture: Tensor) -> FacePhoto:
            return replace(persons["b"][0], name=name, picture=picture)

        build_triplets(persons, proxy, look, folder / "triplets", build)
        base = random_base(LEVELS, CONTEXT, HEADS, 1)
        vae = {f"first_stage_model.{name}": one.contiguous() for name, one in small_vae_tensors().items()}
        save_file(
            {f"model.diffusion_model.{name}": one for name, one in base.items()} | vae, folder / "base.safetensors"
        )
        save_file({"context": TEXT}, folder / "context.safetensors")
        torch.manual_seed(0)
        encoder = IResNet(IResNetConfig(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4, 4), embedding=8))
        save_file(encoder.state_dict(), folder / "encoder.safetensors", {"likeness.encoder_id": "arcface_small"})
        self.output = folder / "out" / "a.safetensors"
        told = {
            "triplets": folder / "triplets", "output": self.output, "encoder": folder / "encoder.safetensors",
            "context": folder / "context.safetensors", "size": 64, "batch": 2, "device": "cpu", "tell-every": 1,
            "head-channels": HEADS, "dtype": "float32",
        }  # fmt: skip
        self.words = [word for name, value in told.items() for word in (f"--{name}", str(value))]
        self.base = ["--base", str(folder / "base.safetensors"), "--vae", str(folder / "base.safetensors")]


def test_the_command_trains_resumes_refuses_and_fine_tunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(tmp_path)
    tool = importlib.import_module("likeness_pack.tools.train_dreamid")
    first = [*command.words, *command.base, "--steps", "2"]
    assert tool.main(first) == 0
    said = capsys.readouterr().out
    assert "2 triplets of 64 px" in said
    assert "step 2: identity" in said
    assert "cosine to the source" in said
    facts = registry.load(command.output).facts
    assert (facts.steps, facts.face_encoder, facts.base, facts.points) == (2, "arcface_small", "base", 5)
    assert tool.main([*first, "--seed", "3"]) == 1
    assert "expected seed 0, found seed 3" in capsys.readouterr().err
    tuned = tmp_path / "tuned.safetensors"
    words = [*command.words, *command.base[2:], "--steps", "1", "--start", str(command.output), "--output", str(tuned)]
    assert tool.main(words) == 0
    assert registry.load(tuned).facts.base == "base"
    refused = {
        "no such folder": [*first, "--triplets", str(tmp_path / "none")],
        "Stable Diffusion 2.1's layout": [*first, "--base", str(tmp_path / "context.safetensors")],
    }
    capsys.readouterr()
    for sentence, given in refused.items():
        assert tool.main(given) == 1
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(["--triplets", "x"])
    assert "--output, --encoder must be given" in capsys.readouterr().err


def test_gradients_pass_the_hosts_decoder(tmp_path: Path) -> None:
    command = Command(tmp_path)
    tool = importlib.import_module("likeness_pack.tools.train_dreamid")
    codec = tool.HostCodec(Path(command.base[1]), torch.device("cpu"))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    codec.decode(latents).square().mean().backward()
    assert latents.grad is not None
    assert float(latents.grad.abs().min()) > 0
    assert codec.encode(torch.rand(1, 3, 64, 64)).shape == (1, 4, 8, 8)
