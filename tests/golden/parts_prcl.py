"""PRCL: uncertainty head, mutual likelihood, fusion by precision, the whole network."""

from __future__ import annotations

import torch
from harness import Golden, part
from likeness_pack.adapters.parsers.prcl.arch import UncertainDeepLab, UncertaintyHead
from likeness_pack.adapters.precision import fuse, mutual_likelihood

# The spec's tolerance: a hundred random layers in a row.
TOLERANCE = 1e-4


@part("prcl")
@torch.no_grad()
def prcl(golden: Golden) -> None:
    """The uncertainty head, mutual likelihood, fusion, and the maps of the whole network."""
    hyper, inputs = golden.metadata["hyper-parameters"], golden.metadata["inputs"]
    head = golden.fill(UncertaintyHead()).eval()
    network = golden.fill(UncertainDeepLab(hyper["classes"], hyper["rep_dim"])).eval()
    kept = {f"model.{name}" for name in network.state_dict()} | {f"uncer_head.{name}" for name in head.state_dict()}
    assert kept == set(golden.keys)
    golden.check("sigma", head(golden.input("feat", inputs["feat"]))[:, ::8], TOLERANCE)

    one, seven = inputs["mu0"], inputs["mu1"]
    first, second = golden.input("mu0", one), golden.input("mu1", seven)
    doubt, doubts = golden.input("s0", one).sigmoid(), golden.input("s1", seven).sigmoid()
    golden.check("mls", mutual_likelihood(first, second, doubt, doubts))
    mean, variance = fuse(second[0], doubts[0])
    golden.check("proto_mu", mean[None])
    golden.check("proto_sigma", variance[None])

    maps = network(golden.input("image", inputs["image"]))
    golden.check("pred", maps.logits, TOLERANCE)
    golden.check("rep_slice", maps.representation[:, ::8], TOLERANCE)
    golden.check("raw_feat_slice", maps.features[:, ::8], TOLERANCE)
    golden.check("sigma_img_slice", head(maps.features)[:, ::8], TOLERANCE)
