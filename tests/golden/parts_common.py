"""IP-Adapter plus-face, InstantID and PhotoMaker: projections, the keypoint picture, fusion."""

from __future__ import annotations

import torch
from harness import Golden, part, resampler_sizes
from likeness_pack.adapters.families.photomaker.arch import FuseModule, QFormerPerceiver
from likeness_pack.adapters.layers.perceiver import Resampler
from likeness_pack.faces.keypoints_picture import draw_keypoints
from torch.nn.functional import normalize


def _resampler(golden: Golden) -> Resampler:
    return golden.fill(Resampler(**resampler_sizes(golden.metadata["hyper_parameters"])))


def _plus_face(golden: Golden) -> None:
    patches = golden.input("clip_hidden", golden.metadata["inputs"]["clip_hidden"])
    golden.check("tokens", _resampler(golden)(patches))


@part("common_plusface_proj_sd15")
def common_plusface_proj_sd15(golden: Golden) -> None:
    """Plus and plus-face for SD1.5."""
    _plus_face(golden)


@part("common_plusface_proj_sdxl")
def common_plusface_proj_sdxl(golden: Golden) -> None:
    """Plus and plus-face for SDXL (ViT-H)."""
    _plus_face(golden)


@part("common_instantid_resampler")
def common_instantid_resampler(golden: Golden) -> None:
    """Raw embeddings, about 20 long, to tokens; and the unconditional tokens of a zero embedding."""
    embedding = golden.input("embedding", (2, 1, golden.metadata["hyper_parameters"]["embedding_dim"]))
    embedding = normalize(embedding, dim=-1) * 20
    resampler = _resampler(golden)
    golden.check("tokens", resampler(embedding))
    golden.check("tokens_uncond", resampler(torch.zeros_like(embedding[:1])))


@part("common_instantid_kps")
def common_instantid_kps(golden: Golden) -> None:
    """The keypoint picture, equal to the last pixel."""
    hyper = golden.metadata["hyper_parameters"]
    height, width, _ = golden.tensors["image"].shape
    points = golden.tensors["kps"][None]
    picture = draw_keypoints(points, height, width, hyper["stickwidth"], hyper["radius"])
    golden.check("image", picture, 0.0)


@part("common_photomaker_fuse")
def common_photomaker_fuse(golden: Golden) -> None:
    """Two identity tokens fused into the rows of the class word."""
    inputs = golden.metadata["inputs"]
    prompt, identity = (golden.input(name, inputs[name]) for name in ("prompt", "id"))
    rows = [int(digit) for digit in inputs["class_tokens_mask"].split("positions")[-1].split(",")]
    module = FuseModule(golden.metadata["hyper_parameters"]["embed_dim"])
    golden.fill(module)
    fused = module.fused(prompt, identity.flatten(0, 2), rows)
    golden.check("updated_4_6", fused[:, rows[0] - 1 : rows[-1] + 2])


@part("common_photomaker_v2_qformer")
def common_photomaker_v2_qformer(golden: Golden) -> None:
    """A raw face embedding refined by the last hidden state of CLIP."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    width = hyper["cross_attention_dim"]
    module = QFormerPerceiver(
        hyper["id_embeddings_dim"],
        hyper["id_embeddings_dim"] * hyper["ratio"],
        hyper["num_tokens"],
        width,
        image_dim=hyper["embedding_dim"],
        depth=hyper["depth"],
        heads=hyper["heads"],
        feed_forward=4 * width,
    )
    golden.fill(module)
    embedding, hidden = (golden.input(name, inputs[name]) for name in ("insight", "vit_last"))
    golden.check("id_tokens", module(embedding, hidden))
