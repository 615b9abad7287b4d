"""TopoFR R50, R100 and R200 against the official residual network."""

from __future__ import annotations

import torch
from harness import Golden, part
from likeness_pack.adapters.encoders.topofr.arch import IResNet, IResNetConfig, class_cosines
from torch import Tensor
from torch.nn import functional


def _network(golden: Golden) -> IResNet:
    hyper, keys = golden.metadata["hyper_parameters"], golden.keys
    first, second, third, fourth = (int(count) for count in hyper["layers"])
    config = IResNetConfig(
        (first, second, third, fourth), embedding=int(hyper["num_features"]), classes=int(hyper["num_classes"])
    )
    with torch.device("meta"):
        network = IResNet(config)
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == {name: tuple(shape) for name, shape in keys.items()}
    network.to_empty(device="cpu")
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.zero_()
    golden.fill(network)
    return network


def _check_by_peak(golden: Golden, name: str, got: Tensor, tolerance: float = 1e-5) -> None:
    """Compare against the tensor's own largest number.

    Filled at random, the deep networks reach 1e2 to 1e12, and a small difference of such numbers says nothing.
    """
    expected = golden.tensors[name]
    assert got.shape == expected.shape
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    assert error <= tolerance, f"{golden.path.stem}:{name}: error {error:.3g} of the peak > {tolerance:g}"


@torch.no_grad()
def _run(golden: Golden) -> None:
    network = _network(golden)
    recipe = golden.metadata["inputs"]["image"]
    image = (golden.input("image", recipe["shape"]) * 0.5).clamp(-1, 1)
    for number, stage in enumerate(network.stages(image), start=1):
        _check_by_peak(golden, f"layer{number}_mean", stage.mean((2, 3)))
        _check_by_peak(golden, f"layer{number}_std", stage.std((2, 3)))
    embedding = network(image)
    _check_by_peak(golden, "embedding", embedding)
    golden.check("embedding_l2", functional.normalize(embedding, dim=-1))
    golden.check("logits", class_cosines(embedding, network.weight))
    for name, tensor in network.named_parameters():
        if ".bn3." in name:
            tensor.mul_(0.2)
    golden.check("embedding_damped", network(image))


@part("topofr_r50")
def topofr_r50(golden: Golden) -> None:
    """Blocks 3, 4, 14, 3."""
    _run(golden)


@part("topofr_r100")
def topofr_r100(golden: Golden) -> None:
    """Blocks 3, 13, 30, 3."""
    _run(golden)


@part("topofr_r200")
def topofr_r200(golden: Golden) -> None:
    """Blocks 6, 26, 60, 6."""
    _run(golden)
