"""Recognition: one claim wins, two are an error, none gives every reason; variants; hints for foreign files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import load_strictly, load_tensors, read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, BadCheckpoint, UnknownCheckpoint, UnsafeCheckpoint
from likeness_pack.adapters.model_table import PublishedFile
from likeness_pack.adapters.registry import Ambiguity, DetectionReport, Family, Licence, Match
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from torch import nn


class LinearFamily(Family):
    id = "linear"
    kind = "adapter"
    title = "Linear Thing"
    licence = Licence("MIT", "CC0-1.0", True, "a toy")
    links = ("https://example.org",)
    folder = "face_adapters"

    def recognise(self, header):
        shape = header.shape("line.weight")
        if shape is None:
            return "no line.weight"
        hyper = {"base": "sd15", "tokens": 4, "layers": 1, "sample_bytes": 100, "width": shape[0], "inputs": shape[1]}
        return Match(self, None, hyper)

    def build(self, header, match):
        network = nn.Module()
        network.line = nn.Linear(match.hyper["inputs"], match.hyper["width"])
        load_strictly(network, load_tensors(header), what=header.path.name)
        return network.eval().requires_grad_(False)


class GreedyFamily(LinearFamily):
    id = "greedy"
    title = "Greedy Thing"

    def recognise(self, header):
        return Match(self, None) if "line.weight" in header.tensors else "nothing to take"


class TwinFamily(LinearFamily):
    id = "twin"
    title = "Twin Thing"
    variants = ("old", "new")

    def recognise(self, header):
        if header.has("twin.weight"):
            return Ambiguity(("old", "new"), "the tensors are the same", {"base": "sdxl"})
        return Match(self, "old") if header.has("old.weight") else "no twin.weight"


class EncoderFamily(LinearFamily):
    id = "encoder"
    kind = "encoder"
    title = "Encoder Thing"


TOYS = (LinearFamily(), TwinFamily())


def saved(path: Path, *names: str, metadata: dict[str, str] | None = None) -> Any:
    save_file({name: torch.ones(2, 3) if "weight" in name else torch.ones(2) for name in names}, path, metadata)
    return read_header(path)


def test_one_claim_is_built_from_its_shapes(tmp_path):
    header = saved(tmp_path / "anything", "line.weight", "line.bias")
    match = registry.recognise(header, candidates=TOYS)
    assert (match.family.id, match.variant, match.hyper["width"]) == ("linear", None, 2)
    network = match.family.build(header, match)
    assert not network.training
    assert torch.equal(network.line(torch.ones(1, 3)), torch.full((1, 2), 4.0))


@pytest.mark.parametrize(
    "name", ["x.bin", "sub/other name.safetensors", "ip-adapter-faceid.pth", "名.ckpt", "pulid_v1.1"]
)
def test_the_name_of_a_file_decides_nothing(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    assert registry.recognise(saved(path, "line.weight", "line.bias"), candidates=TOYS).family.id == "linear"


def test_two_claims_name_both(tmp_path):
    header = saved(tmp_path / "a", "line.weight")
    with pytest.raises(AmbiguousCheckpoint, match=r"Linear Thing \(linear\) and Greedy Thing \(greedy\)") as caught:
        registry.recognise(header, candidates=(*TOYS, GreedyFamily()))
    assert caught.value.candidates == ("linear", "greedy")


def test_no_claim_collects_every_reason(tmp_path):
    header = saved(tmp_path / "a", "other.weight")
    with pytest.raises(UnknownCheckpoint, match="linear: no line.weight; twin: no twin.weight") as caught:
        registry.recognise(header, candidates=TOYS)
    assert caught.value.reasons == {"linear": "no line.weight", "twin": "no twin.weight"}


def test_kind_limits_who_is_asked(tmp_path):
    header = saved(tmp_path / "a", "line.weight", "line.bias")
    match = registry.recognise(header, "encoder", candidates=(*TOYS, EncoderFamily()))
    assert match.family.id == "encoder"


def test_variant_that_cannot_be_told_is_asked_for(tmp_path):
    header = saved(tmp_path / "a", "twin.weight")
    with pytest.raises(AmbiguousCheckpoint, match="set the option variant to old or new") as caught:
        registry.recognise(header, candidates=TOYS)
    assert caught.value.candidates == ("old", "new")


def test_variant_comes_from_the_option_then_the_published_size_then_the_metadata(tmp_path, monkeypatch):
    header = saved(tmp_path / "a", "twin.weight", metadata={"likeness.variant": "new"})
    assert registry.recognise(header, candidates=TOYS).variant == "new"
    row = SimpleNamespace(family="twin", variant="old", size=header.size, sha256=None)
    monkeypatch.setattr("likeness_pack.adapters.model_table.published_files", lambda: (row,))
    assert registry.recognise(header, candidates=TOYS).variant == "old"
    match = registry.recognise(header, variant="new", candidates=TOYS)
    assert (match.variant, match.hyper["base"]) == ("new", "sdxl")


def test_variant_by_checksum(tmp_path, monkeypatch):
    import hashlib

    header = saved(tmp_path / "a", "twin.weight")
    sha = hashlib.sha256(header.path.read_bytes()).hexdigest()
    rows = (
        SimpleNamespace(family="twin", variant="old", size=header.size + 1, sha256=sha),
        SimpleNamespace(family="twin", variant="new", size=None, sha256=sha),
    )
    monkeypatch.setattr("likeness_pack.adapters.model_table.published_files", lambda: rows)
    assert registry.recognise(header, candidates=TOYS).variant == "new"


def test_metadata_with_another_variant_does_not_decide(tmp_path):
    header = saved(tmp_path / "a", "twin.weight", metadata={"likeness.variant": "newest"})
    with pytest.raises(AmbiguousCheckpoint):
        registry.recognise(header, candidates=TOYS)


@pytest.mark.parametrize(
    ("name", "variant"), [("twin.weight", "newest"), ("old.weight", "new"), ("line.weight", "new")]
)
def test_an_option_that_does_not_fit_is_refused(tmp_path, name, variant):
    with pytest.raises(AmbiguousCheckpoint, match=f"found variant {variant}; set the option variant to auto"):
        registry.recognise(saved(tmp_path / "a", name), variant=variant, candidates=TOYS)


def test_the_fixed_variant_may_be_named(tmp_path):
    assert registry.recognise(saved(tmp_path / "a", "old.weight"), variant="old", candidates=TOYS).variant == "old"


def test_a_file_nobody_takes_that_asks_for_code_is_unsafe(tmp_path):
    import argparse

    torch.save({"other": torch.ones(2), "args": argparse.Namespace()}, tmp_path / "a.ckpt")
    with pytest.raises(UnsafeCheckpoint, match="argparse.Namespace"):
        registry.recognise(read_header(tmp_path / "a.ckpt"), candidates=TOYS)


def test_report_tells_one_fact_per_line(tmp_path):
    header = saved(tmp_path / "a", "line.weight", "line.bias")
    match = registry.recognise(header, candidates=TOYS)
    report = match.family.describe(header, match)
    assert isinstance(report, DetectionReport)
    assert (report.base, report.tokens, report.layers, report.dtype) == ("sd15", 4, 1, "float32")
    assert (report.weight_bytes, report.encode_bytes, report.sample_bytes) == (32, None, 100)
    lines = report.as_text().splitlines()
    assert "family: Linear Thing (linear)" in lines
    assert "commercial use: allowed" in lines
    assert "weight licence: CC0-1.0" in lines
    assert not any(line.startswith(("variant", "memory to encode")) for line in lines)
    assert json.loads(json.dumps(report.as_dict()))["notes"] == ["a toy"]


def test_unknown_licence_is_said():
    report = DetectionReport("f", "F", "", None, None, "float32", 1, None, None, "MIT", "none stated", None)
    assert "commercial use: not stated by the publisher" in report.as_text()


def test_duplicate_ids_are_an_error(monkeypatch):
    modules = {".one.family": LinearFamily(), ".two.family": LinearFamily()}
    monkeypatch.setattr(registry, "import_module", lambda name, package: SimpleNamespace(FAMILY=modules[name]))
    with pytest.raises(registry.DuplicateFamily, match="linear"):
        registry.families(modules=(("adapter", "one"), ("adapter", "two")))


def test_families_of_a_kind_do_not_import_the_others(monkeypatch):
    asked = []

    def fake(name, package):
        asked.append(name)
        return SimpleNamespace(FAMILY=LinearFamily())

    monkeypatch.setattr(registry, "import_module", fake)
    modules = (("adapter", "families.one"), ("encoder", "encoders.two"))
    assert len(registry.families("adapter", modules=modules)) == 1
    assert asked == [".families.one.family"]


FOREIGN = {
    "pulid_ca.0.to_q.weight": "PuLID for Flux",
    "id_adapter_attn_layers.0.id_to_k.weight": "PuLID for SDXL",
    "image_proj.mapping_0.0.weight": "PuLID for SDXL",
    "id_encoder.vision_model.embeddings.class_embedding": "PhotoMaker",
    "ip_adapter.1.to_q_wplus.weight": "W+ adapter",
    "ip_adapter.1.to_k_face.weight": "ID-Animator",
    "double_blocks.0.processor.ref_qkv_lora_q.down.weight": "DreamFit",
    "encoders.0.conv4d.0.0.query_conv.weight": "AM-Adapter",
    "controlnet_cond_embedding.conv_in.weight": "models/controlnet",
    "lora_unet_down_blocks_0.lora_up.weight": "models/loras",
    "down_blocks.0.resnets.0.conv1.weight": "models/diffusion_models",
    "vision_model.encoder.layers.0.mlp.fc1.weight": "models/clip_vision",
    "ip_adapter.1.to_k_ip.weight": "IP-Adapter of another kind",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_systems_are_named(tmp_path, name):
    with pytest.raises(UnknownCheckpoint) as caught:
        registry.recognise(saved(tmp_path / "a", name), candidates=TOYS)
    assert FOREIGN[name] in str(caught.value)
    assert "linear: no line.weight" in str(caught.value)


def test_a_lora_inside_an_ip_adapter_does_not_make_it_a_lora_file(tmp_path):
    names = ("ip_adapter.1.to_k_ip.weight", "ip_adapter.0.to_q_lora.down.weight", "image_proj.proj_in.weight")
    with pytest.raises(UnknownCheckpoint, match="an IP-Adapter of another kind"):
        registry.recognise(saved(tmp_path / "a", *names), candidates=TOYS)


def test_a_file_of_another_kind_is_sent_to_its_loader(tmp_path, monkeypatch):
    known = (*TOYS, EncoderFamily())
    monkeypatch.setattr(registry, "families", lambda kind=None: tuple(one for one in known if kind in (None, one.kind)))
    header = saved(tmp_path / "a", "line.weight")
    with pytest.raises(UnknownCheckpoint, match="Linear Thing, of kind adapter.*models/face_adapters"):
        registry.recognise(header, "detector")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_base_model_is_sent_to_its_folder(tmp_path, wrapped):
    names = ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.up.0.block.0.weight"]
    header = saved(tmp_path / "a", *(("state_dict." if wrapped else "") + name for name in names))
    with pytest.raises(UnknownCheckpoint, match="whole base model.*models/checkpoints"):
        registry.recognise(header, candidates=TOYS)


def test_instant_id_is_told_from_its_shapes(tmp_path):
    shapes = {
        "image_proj.latents": (1, 16, 1280),
        "image_proj.proj_in.weight": (1280, 512),
        "ip_adapter.1.to_k_ip.weight": (640, 2048),
    }
    header = read_header(write_sparse_safetensors(tmp_path / "a", shapes))
    with pytest.raises(UnknownCheckpoint, match="InstantID"):
        registry.recognise(header, candidates=TOYS)


def test_recognition_of_a_gigabyte_reads_only_the_header(tmp_path):
    import tracemalloc

    shapes = {"line.weight": (16384, 16384), "line.bias": (16384,)}
    for path in (
        write_sparse_safetensors(tmp_path / "a.safetensors", shapes),
        write_zero_storage_torch(tmp_path / "a.ckpt", shapes),
    ):
        tracemalloc.start()
        match = registry.recognise(read_header(path), candidates=TOYS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert match.hyper["width"] == 16384
        assert peak < 20_000_000


def test_load_and_describe_name_a_file_that_is_not_there(tmp_path):
    for function in (registry.load, registry.describe):
        with pytest.raises(BadCheckpoint, match="no such file"):
            function(tmp_path / "none.bin")


def test_rows_of_the_table_have_the_fields_that_recognition_reads():
    assert {"family", "variant", "size", "sha256"} <= set(PublishedFile.__dataclass_fields__)
