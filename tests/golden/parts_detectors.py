"""Golden parts of the face detectors."""

from __future__ import annotations

import re

import torch
from harness import Golden, part
from likeness_pack.adapters.detectors.insightface import scrfd
from likeness_pack.adapters.detectors.retinaface.arch import RetinaFace, decode_boxes, decode_points, priors

# Fifty layers of this random network carry values to 70. The golden numbers themselves are up to 3.7e-5 away from the
# same network in float64, and oneDNN's instruction sets differ among themselves by up to 6.7e-5.
NOISE = 1e-4


@part("fact_retinaface")
def fact_retinaface(golden: Golden) -> None:
    """Network, anchors and decoding of ModelScope's RetinaFace; the names of the module are those of the file."""
    network = RetinaFace()
    names = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert names == golden.keys
    golden.fill(network)
    height, width = golden.metadata["inputs"]["image"]["shape"][2:]
    image = golden.input("image", golden.metadata["inputs"]["image"]["shape"]) * 50
    shifts, scores, points = network(image)
    golden.check("loc", shifts, NOISE)
    golden.check("conf", scores, NOISE)
    golden.check("landms", points, NOISE)
    anchors = priors(height, width)
    golden.check("priors", anchors)
    damp = golden.tensors["damp"]
    golden.check("decoded_boxes", decode_boxes(shifts[0] * damp, anchors))
    golden.check("decoded_landms", torch.flatten(decode_points(points[0] * damp, anchors), 1))


def wave_image(golden: Golden, name: str, height: int, width: int) -> torch.Tensor:
    """The image rule of the file: (H, W, 3) uint8 sine waves, computed in float64."""
    n = golden.input(f"img:{name}", (9,)).double()
    fx, fy, phase = 0.15 + 0.05 * torch.tanh(n[:3]), 0.12 + 0.05 * torch.tanh(n[3:6]), n[6:]
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    waves = 127.5 * (1 + torch.sin(fx * x[..., None] + fy * y[..., None] + phase))
    return torch.floor(waves + 0.5).to(torch.uint8)


@part("faceswap_scrfd")
def faceswap_scrfd(golden: Golden) -> None:
    """Input square, decoding, suppression and ranking of insightface's SCRFD around a fake network."""
    scene = golden.metadata["inputs"]["scene"]
    height, width, side_x, side_y = (int(value) for pair in re.findall(r"(\d+)x(\d+)", scene)[:2] for value in pair)
    score = float(re.findall(r"det_thresh ([\d.]+)", scene)[0])

    def run(_: torch.Tensor) -> list[torch.Tensor]:
        counts = [(stride, (side_x // stride) * (side_y // stride) * 2) for stride in (8, 16, 32)]
        scores = [torch.sigmoid(golden.input(f"s{stride}", (count, 1)) * 1.4 - 2.2) for stride, count in counts]
        boxes = [golden.input(f"b{stride}", (count, 4)).abs() * 0.6 + 1.2 for stride, count in counts]
        points = [golden.input(f"k{stride}", (count, 10)) * 0.8 for stride, count in counts]
        return [*scores, *boxes, *points]

    # The official code takes blue first and turns it round for the network.
    pixels = wave_image(golden, "scene", height, width).flip(-1)
    golden.check("blob_every4", scrfd.fit(pixels, (side_x, side_y)).blob[..., ::4, ::4])
    faces = scrfd.detect(pixels, run, score, [(side_x, side_y)])
    golden.check("det", torch.cat([faces.boxes, faces.scores[:, None]], 1))
    golden.check("kps", faces.landmarks5)
    assert len(faces) == int(golden.tensors["count"])
    for name, metric in (("det_max2", "central"), ("det_max2_metric_max", "area")):
        best = scrfd.best(faces, (height, width), 2, metric)
        golden.check(name, torch.cat([best.boxes, best.scores[:, None]], 1))
