"""FLR ResNet-50 with projection and prototypes against the official SwAV network."""

from __future__ import annotations

from harness import Golden, part
from likeness_pack.adapters.encoders.face_representation.arch import FaceRepresentation, ReprConfig
from torch import nn

TOLERANCE = 1e-4


@part("face_representation_flr_r50")
def face_representation_flr_r50(golden: Golden) -> None:
    """Stage maps, pooled features, projection and prototype scores."""
    hyper = golden.metadata["hyper-parameters"]
    network = FaceRepresentation(
        ReprConfig(
            hidden=int(hyper["projection_hidden"]),
            projection=int(hyper["projection"]),
            prototypes=int(hyper["prototypes"]),
        )
    )
    # The rule fills by the published names, which carry the trainer's wrapper.
    wrapped = nn.Module()
    wrapped.module = network
    ours = {name: tuple(tensor.shape) for name, tensor in wrapped.state_dict().items()}
    assert ours == {name: tuple(shape) for name, shape in golden.keys.items()}
    golden.fill(wrapped)
    shapes = golden.metadata["inputs"]
    image = golden.input("image", shapes["image"])
    stages = network.base_net.stages(image)
    for number, (stage, step) in enumerate(zip(stages, (4, 4, 2, 1), strict=True), start=1):
        golden.check(f"layer{number}_slice", stage[:, ::16, ::step, ::step], TOLERANCE)
    pooled = network(image)
    golden.check("pooled", pooled, TOLERANCE)
    embedding = network.projection_net(pooled)
    golden.check("embedding", embedding, TOLERANCE)
    golden.check("proto_scores", network.prototypes(embedding)[:, ::10], TOLERANCE)
    golden.check("pooled96", network(golden.input("image96", shapes["image96"])), TOLERANCE)
