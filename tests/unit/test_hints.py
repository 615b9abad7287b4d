"""What a file that no family takes probably is, told by its keys; and what to do with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pack import register
from sparse_files import write_sparse_safetensors

register()

from likeness_pack.adapters import registry  # noqa: E402
from likeness_pack.adapters.checkpoint import read_header  # noqa: E402
from likeness_pack.adapters.errors import UnknownCheckpoint  # noqa: E402
from likeness_pack.adapters.hints import likely_kind  # noqa: E402


@pytest.mark.parametrize(
    ("key", "kind", "folder"),
    [
        ("pulid_ca.0.to_q.weight", "PuLID for Flux", "face_adapters"),
        ("image_proj.mapping_0.0.weight", "PuLID for SDXL", "face_adapters"),
        ("id_encoder.vision_model.pre_layrnorm.weight", "PhotoMaker", "face_adapters"),
        ("adapter.1.to_k_wplus.weight", "W+ adapter", "face_adapters"),
        ("adapter.1.to_k_face.weight", "ID-Animator", "face_adapters"),
        ("motion_modules.0.temporal_transformer.norm.weight", "AnimateDiff", "Apply Motion Module"),
        ("blocks.0.ref_qkv_lora_down.weight", "DreamFit", "face_adapters"),
        ("encoders.0.conv4d.0.0.query_conv.weight", "AM-Adapter", "face_adapters"),
        ("structcond_stage_model.input_blocks.0.0.weight", "RestorerID", "face_adapters"),
        ("controlnet_cond_embedding.conv_in.weight", "ControlNet", "models/controlnet"),
        ("unet.down.lora_up.weight", "LoRA", "models/loras"),
        ("double_blocks.0.img_attn.qkv.weight", "diffusion model", "models/diffusion_models"),
        ("vision_model.encoder.layers.0.mlp.fc1.weight", "CLIP vision", "models/clip_vision"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "CLIP text", "models/text_encoders"),
        ("decoder.up.0.block.0.conv1.weight", "VAE", "models/vae"),
    ],
)
def test_a_part_or_another_file_is_named_with_its_place(tmp_path: Path, key: str, kind: str, folder: str) -> None:
    header = read_header(write_sparse_safetensors(tmp_path / "some.safetensors", {key: (2, 3)}))
    with pytest.raises(UnknownCheckpoint) as caught:
        registry.recognise(header, "adapter")
    assert kind in caught.value.found
    assert folder in caught.value.cure


def test_a_part_of_an_ip_adapter_is_told(tmp_path: Path) -> None:
    shapes = {"ip_adapter.1.to_k_ip.weight": (320, 768)}
    hint = likely_kind(read_header(write_sparse_safetensors(tmp_path / "some.safetensors", shapes)))
    assert hint
    assert "IP-Adapter" in hint.found


def test_nothing_is_guessed_where_no_key_is_known(tmp_path: Path) -> None:
    header = read_header(write_sparse_safetensors(tmp_path / "some.safetensors", {"weight": (2, 3)}))
    assert likely_kind(header) is None
