"""Training recipes of face encoders: TransFace and TopoFR."""

from __future__ import annotations

import torch
from harness import Golden, part
from likeness_pack.training.recogniser.entropy_weights import sample_weights, weighted_margin_loss
from likeness_pack.training.recogniser.margins import arcface_logits, constant_margin_logits, cosines
from likeness_pack.training.recogniser.patch_amplitude import mix_amplitudes
from likeness_pack.training.recogniser.structure_damage import (
    fit_mixture,
    signed_entropies,
    structure_damage_loss,
    structure_weights,
)
from likeness_pack.training.recogniser.topology import topological_loss
from torch import Tensor
from torch.nn import functional

ONE_LEVEL = 1.0


@part("transface_train")
@torch.enable_grad()
def transface_train(golden: Golden) -> None:
    """DPAP's mixed patches, EHSM's weights, and the loss with its gradients."""
    hyper = golden.metadata["hyper_parameters"]
    batch, classes = hyper["batch"], hyper["classes"]
    width = golden.tensors["grad_centres"].shape[1]
    labels = torch.tensor(golden.metadata["inputs"]["labels"])
    centres = golden.input("centres", (classes, width)) * 0.01
    nudged = golden.input("embedding", (batch, width)) + 30 * functional.normalize(centres)[:batch]
    embedding = nudged.requires_grad_()
    centres.requires_grad_()
    entropy = golden.input("entropy", (batch, hyper["K"])).abs() * 0.5

    weights = sample_weights(entropy, hyper["gamma"])
    loss = weighted_margin_loss(constant_margin_logits(cosines(embedding, centres), labels), labels, weights)
    loss.backward()

    golden.check("sample_weight", weights)
    golden.check("ehsm_loss", loss.reshape(1))
    golden.check("grad_embedding", _grad(embedding))
    golden.check("grad_centres", _grad(centres))
    for number, share in enumerate(hyper["lam"]):
        own, other = (_patch(golden, f"patch_{side}{number}", middle) for side, middle in (("a", 128), ("b", 110)))
        mixed = mix_amplitudes(own, other, share).permute(1, 2, 0)
        # Truncation to whole levels: a last bit may cost one.
        assert (mixed - golden.tensors[f"mix_{number}"]).abs().max() <= ONE_LEVEL
        assert (mixed != golden.tensors[f"mix_{number}"]).float().mean() < 0.02


@part("topofr_train")
@torch.enable_grad()
def topofr_train(golden: Golden) -> None:
    """PTSA's loss with its gradients; ArcFace's logits; SDE's entropies, mixture, weights and losses."""
    hyper = golden.metadata["hyper_parameters"]
    batch, classes = hyper["batch"], hyper["classes"]
    rows = torch.arange(batch)
    labels = 2 * rows
    features = (golden.input("features", (batch, 512)) * 0.02).requires_grad_()
    brightness = (0.3 + 0.1 * rows)[:, None, None, None]
    images = (golden.input("images", (batch, 3, 112, 112)) * 0.5).clamp(-1, 1) * brightness
    loss = topological_loss(images, features)
    loss.backward()
    golden.check("topo_loss", loss.reshape(1))
    golden.check("topo_grad_features", _grad(features))

    cosine = (golden.input("cosine", (batch, classes)) * 0.15).clamp(-0.95, 0.95)
    cosine[rows, labels] += torch.linspace(-0.6, 0.8, batch)
    logits = arcface_logits(cosine.clamp(-0.95, 0.95), labels, hyper["m"], hyper["s"])
    golden.check("arcface_logits", logits)
    golden.check("ce", functional.cross_entropy(logits, labels, reduction="none"))
    entropies = signed_entropies(logits)
    golden.check("entropy_signed", entropies)
    mixture = fit_mixture(entropies)
    golden.check("gum_gamma", mixture.clean)
    golden.check("gum_pi_sigma", torch.tensor([mixture.share, mixture.variance]))
    golden.check("p_true", logits.softmax(dim=1)[rows, labels])
    golden.check("w2_as_shipped", structure_weights(logits, labels)[1])
    golden.check("loss_cls_as_shipped", structure_damage_loss(logits, labels).reshape(1))
    golden.check("loss_cls_float_w2", structure_damage_loss(logits, labels, focal=True).reshape(1))


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _patch(golden: Golden, name: str, middle: float) -> Tensor:
    return (golden.input(name, (9, 9, 3)) * 40 + middle).clamp(0, 255).permute(2, 0, 1)
