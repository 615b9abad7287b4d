"""DreamID-V: pictures, pose tokens, self-attention with pose, sampler; both models through the host's own Wan."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from harness import Golden, NeedsNewerHost, part
from torch import Tensor

# The host takes sines and cosines of 833 f in float32, the authors in float64: that alone moves outputs by 1.3e-5
# (1.6e-6 are left with the host's time in float64), and ``guided`` multiplies it by 4 to 5.
HOST_TOLERANCE = 5e-5


@part("dreamidv_projector")
def dreamidv_projector(golden: Golden) -> None:
    """Pose pictures to tokens."""
    from likeness_pack.adapters.families.dreamid_v.arch import Projector

    projector = golden.fill(Projector(golden.metadata["hyper"]["vid_dim"]))
    assert {name: list(tensor.shape) for name, tensor in projector.state_dict().items()} == golden.keys
    pictures = golden.input("pose_video", golden.metadata["inputs"]["pose_video"])
    golden.check("tokens", projector(pictures)[0])


@part("dreamidv_self_attn")
def dreamidv_self_attn(golden: Golden) -> None:
    """A self-attention of the model with and without what the pose adds before its output projection."""
    from likeness_pack.adapters.families.dreamid_v.arch import EPSILON, HEAD, PoseAttention, turned, turns

    hyper, inputs = golden.metadata["hyper"], golden.metadata["inputs"]
    weights = golden.filled(golden.keys)
    x, pose = golden.input("x", inputs["x"]), golden.input("pose_tokens", inputs["pose_tokens"])
    turn = turns(*hyper["grid_sizes"])
    layer = PoseAttention(hyper["dim"])
    layer.load_state_dict({name: weights[name] for name in layer.state_dict()})

    def linear(name: str, value: Tensor) -> Tensor:
        return torch.nn.functional.linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def rotated(name: str) -> Tensor:
        normed = torch.nn.functional.rms_norm(linear(name, x), x.shape[-1:], weights[f"norm_{name}.weight"], EPSILON)
        return turned(normed.unflatten(-1, (-1, HEAD)), turn).flatten(-2)

    q = rotated("q")
    out = _attend(q, rotated("k"), linear("v", x))
    golden.check("out_without_pose", linear("o", out))
    golden.check("out_with_pose", linear("o", out + layer(q, pose, turn, _attend)))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = (part.unflatten(-1, (-1, 128)).transpose(1, 2) for part in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)


@part("dreamidv_unipc")
def dreamidv_unipc(golden: Golden) -> None:
    """Noise levels, told timesteps, and the latent after the predictor of some steps."""
    from likeness_pack.adapters.families.dreamid_v import unipc

    for name in (name for name in golden.tensors if name.startswith("sigmas_")):
        steps = int(name.removeprefix("sigmas_"))
        levels = unipc.noise_levels(steps, golden.metadata["hyper"]["set_timesteps_shift"])
        golden.check(name, levels)
        golden.check(f"timesteps_{steps}", unipc.told_timesteps(levels))
    recipe = str(golden.metadata["inputs"]["fake_model"])
    inner, each, steps = (float(number) for number in re.findall(r"[\d.]+(?=\*x|\*i| steps)", recipe))
    seen: dict[int, Tensor] = {}
    unipc.sample(
        golden.input("noise", golden.metadata["inputs"]["noise"]),
        unipc.noise_levels(int(steps), golden.metadata["hyper"]["set_timesteps_shift"]),
        lambda x, number: torch.tanh(inner * x + each * number),
        lambda number, _, x: seen.__setitem__(number, x),
    )
    for name in (name for name in golden.tensors if name.startswith("x_after_")):
        golden.check(name, seen[int(name.removeprefix("x_after_"))])


@part("dreamidv_geometry")
def dreamidv_geometry(golden: Golden) -> None:
    """Sizes, frames, photo; pose pictures and masks of both of the authors' ways."""
    from likeness_pack.adapters.families.dreamid_v import pictures

    for width, height, area, out_width, out_height in golden.tensors["sizes"].int().tolist():
        assert pictures.fit(height, width, area).size == (out_height, out_width), (width, height, area)
    inputs = golden.metadata["inputs"]
    (frame_name,) = (name for name in golden.tensors if name.startswith("frame_area"))
    (reference_name,) = (name for name in golden.tensors if name.startswith("ref_tensor_area"))
    area = int(inputs["area"])
    frame = _picture(golden, "frame", *_numbers(inputs["frame"]))
    fit = pictures.fit(frame.shape[0], frame.shape[1], area)
    golden.check(frame_name, _tensor(pictures.model_frames(frame[None] / 255, fit)))
    photo = _picture(golden, "refimg", *_numbers(inputs["refimg"]))
    box = pictures.letterboxed(photo.movedim(-1, 0).to(torch.uint8), *frame.shape[:2])
    golden.check("ref_letterboxed", box.movedim(0, -1))
    golden.check(reference_name, _tensor(pictures.model_reference(photo / 255, fit)))
    _check_body_pose(golden)
    _check_mesh(golden)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)[:2]]


def _tensor(frames: Tensor) -> Tensor:
    """(F, H, W, 3), 0..1, as the file holds it: (3, F, H, W), -1..1."""
    return frames.movedim(-1, 0) * 2 - 1


def _picture(golden: Golden, name: str, height: int, width: int) -> Tensor:
    """The rule's picture (height, width, 3), whole numbers in float64."""
    n = golden.input(f"img:{name}", (9,)).double()
    fx, fy, phase = 0.15 + 0.05 * n[0:3].tanh(), 0.12 + 0.05 * n[3:6].tanh(), n[6:9]
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return torch.floor(127.5 * (1 + torch.sin(fx * x[..., None] + fy * y[..., None] + phase)) + 0.5)


def _check_body_pose(golden: Golden) -> None:
    from likeness_pack.adapters.families.dreamid_v import body_pose

    faces = golden.tensors["dw_faces"].double()
    mask, pose = golden.tensors["dw_mask"], golden.tensors["dw_pose"]
    height, width = mask.shape
    got = body_pose.face_mask(faces * torch.tensor([width, height]), height, width)
    golden.check("dw_mask", got * mask.max())
    height, width = pose.shape[:2]
    size = torch.tensor([width, height])
    places = golden.tensors["dw_body_subset"].long()
    body = golden.tensors["dw_body"].double() * size
    bodies = [body[row.clamp(min=0)].masked_fill((row < 0)[:, None], math.nan) for row in places]
    golden.check("dw_pose", body_pose.draw_pose(faces * size, height, width, bodies))


def _check_mesh(golden: Golden) -> None:
    from likeness_pack.adapters.families.dreamid_v import mesh, mesh_points

    frames = golden.tensors["mp_points"].shape[0]
    base = golden.input("lmk3d", (mesh_points.MESH, 3)) * torch.tensor([5.0, 6.0, 3.0])
    deltas = [golden.input(f"delta{number}", (mesh_points.MESH, 3)) for number in range(frames)]
    meshes = mesh.FaceMeshes(
        torch.stack([golden.input(f"lm{number}", (478, 3)).sigmoid() for number in range(frames)]),
        torch.stack([base + delta * 0.3 for delta in deltas]),
        torch.stack([golden.input(f"bs{number}", (51,)).sigmoid() for number in range(frames)]),
        golden.tensors["mp_trans_mat"],
    )
    reference = 0.95 * base + golden.input("refdelta", (mesh_points.MESH, 3)) * 0.2
    assert mesh.neutral_frame(meshes.blendshapes) == int(golden.tensors["mp_neutral_index"])
    width, height = _numbers(golden.metadata["inputs"]["frame size"])
    points = mesh.projected(meshes, reference, height, width)
    golden.check("mp_points", points)
    golden.check("mp_pose_frames", mesh.pose_pictures(points, height, width)[..., 0])
    golden.check("mp_mask_frames", mesh.mask_pictures(points, height, width))
    _check_lists(golden)


def _check_lists(golden: Golden) -> None:
    from likeness_pack.adapters.families.dreamid_v import mesh_points

    path = golden.path.with_name("dreamidv_landmark_indices.json")
    if path.exists():
        lists: dict[str, Sequence[int]] = json.loads(path.read_text(encoding="utf-8"))
        assert list(mesh_points.DRAWN) == lists["core_landmarks"]
        assert list(mesh_points.FACE_OVAL) == lists["face_oval_in_order"]
        assert [list(mesh_points.RIGHT_IRIS), list(mesh_points.LEFT_IRIS)] == [lists["r_iris"], lists["l_iris"]]
        assert [list(mesh_points.RIGHT_EYE), list(mesh_points.LEFT_EYE)] == [lists["r_eye"], lists["l_eye"]]


@part("dreamidv_dit_pose_depth2")
def dreamidv_dit_pose_depth2(golden: Golden) -> None:
    """The host's Wan at full width with pose: both sides of the guidance, and their sum at the host's cfg."""
    from likeness_pack.inject.dreamid_v import apply_pose
    from likeness_pack.inject.dreamid_v_conditioning import no_photo
    from likeness_pack.inject.dreamid_v_sampling import GUIDANCE, cfg_of

    model, loaded = _model(golden)
    shape = [int(number) for number in re.findall(r"\d+", golden.metadata["inputs"]["pose_video"])]
    clip = golden.input("pose_video", shape).sigmoid()[0].movedim(0, -1)
    patched = apply_pose(model, loaded, clip)
    photo = _latent(golden, model, "ref_latent")
    cond, uncond = (_velocity(golden, patched, one) for one in (photo, no_photo(photo)))
    golden.check("pred_cond", cond, HOST_TOLERANCE)
    golden.check("pred_uncond", uncond, HOST_TOLERANCE)
    golden.check("guided", uncond + cfg_of(GUIDANCE) * (cond - uncond), HOST_TOLERANCE)


@part("dreamidv_faster_dit_small")
def dreamidv_faster_dit_small(golden: Golden) -> None:
    """The host's Wan without pose: as it is, and closer where its sines of the time are as exact as the authors'."""
    from likeness_pack.inject.dreamid_v_conditioning import no_photo

    model, _ = _model(golden)
    photo = _latent(golden, model, "ref_latent")
    for name, seen in (("pred_cond", photo), ("pred_uncond", no_photo(photo))):
        golden.check(name, _velocity(golden, model, seen), HOST_TOLERANCE)
        with mock.patch("comfy.ldm.wan.model.sinusoidal_embedding_1d", _exact_time):
            golden.check(name, _velocity(golden, model, seen))


def _exact_time(width: int, times: Tensor) -> Tensor:
    """The authors' embedding (B, width) of times (B,)."""
    half = width // 2
    angle = torch.outer(times.double(), 10000 ** -(torch.arange(half).double() / half))
    return torch.cat((angle.cos(), angle.sin()), dim=1).float()


def _model(golden: Golden) -> tuple[Any, Any]:
    """MODEL and adapter of a file with the rule's weights, loaded as a user does."""
    from dreamid_v_models import load_file
    from host_inprocess import engine

    if not engine().has_wrappers:
        raise NeedsNewerHost("this ComfyUI has no Wan")
    with TemporaryDirectory() as folder:
        return load_file(Path(folder) / "any_name.safetensors", golden.filled(golden.keys))


def _latent(golden: Golden, model: Any, name: str) -> Tensor:
    """An input as a VAE gives it; the golden's is what the network sees."""
    latent = golden.input(name, golden.metadata["inputs"][name])[None]
    return model.model.process_latent_out(latent)


def _velocity(golden: Golden, model: Any, photo: Tensor) -> Tensor:
    from dreamid_v_models import TEXT_TOKENS, conditions, wan_call

    inputs = golden.metadata["inputs"]
    x = golden.input("latent", inputs["latent"])[None]
    clip = torch.cat([_latent(golden, model, name) for name in ("video_latent", "mask_latent")], dim=1)
    shape = [int(number) for number in re.findall(r"\d+", inputs["context"])][:2]
    text = torch.nn.functional.pad(golden.input("context", shape), (0, 0, 0, TEXT_TOKENS - shape[0]))[None]
    made = conditions(model, x, text, clip, photo)
    return wan_call(model, x, float(inputs["t"]), made)[0]
