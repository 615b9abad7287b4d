"""Which published ONNX file a file is, so that its identities fit those that onnxruntime makes of it."""

from __future__ import annotations

# sha256 of the recognition files in insightface's packs, as published with the model zoo's mirrors.
ENCODER_IDS = {
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": "arcface_buffalo_l",
    "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf": "arcface_antelopev2",
}
