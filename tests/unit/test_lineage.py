"""What a model file says of its origin, and what its licences ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.file_hash import file_sha256
from likeness_pack.adapters.model_table import published_files
from likeness_pack.adapters.report import DetectionReport
from likeness_pack.evaluation.lineage.checks import Part
from likeness_pack.evaluation.lineage.hashes import data_sha256
from likeness_pack.evaluation.lineage.licences import lost, normalised, restrictions, strictest
from likeness_pack.evaluation.lineage.loading import licence_lines
from likeness_pack.evaluation.lineage.model_card import BadModelCard, card_beside, read_card
from likeness_pack.evaluation.lineage.report import check_file
from likeness_pack.training.checkpointing import write_tensors
from pack import ROOT
from safetensors.torch import load_file, save_file

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def _file(folder: Path, width: int = 768, **metadata: str) -> Path:
    path = folder / "adapter.safetensors"
    save_file({TO_K: torch.zeros(4, width)}, path, metadata)
    return path


class TestLicences:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("Apache-2.0 ", "apache-2.0"),
            ("Apache 2.0", "apache-2.0"),
            ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
            ("unknown", None),
            ("", None),
        ],
    )
    def test_spellings(self, written, expected):
        assert normalised(written) == expected

    def test_other_gives_way_to_the_name(self):
        assert normalised("other", "FLUX-1-dev-non-commercial-license") == "flux-1-dev-non-commercial-license"
        assert restrictions(normalised("other", "flux-1-dev-non-commercial-license")) == {"NC", "USE", "FLOWDOWN"}

    def test_several_parents_count_together_and_an_unknown_one_stops_the_inference(self):
        assert lost(["gpl-3.0", "cc-by-nc-4.0"], "mit") == ["NC", "COPYLEFT", "ATTR_CC"]
        assert lost(["gpl-3.0", None], "mit") is None and lost([], "mit") is None
        assert lost(["mit"], "a licence of my own") is None

    def test_no_file_of_the_table_marked_non_commercial_counts_as_free(self):
        for row in published_files():
            if "non-commercial" in (row.weight_licence or "").lower():
                assert "NC" in (restrictions(normalised(row.weight_licence)) or ()), row.id
        for family in registry.families():
            if family.licence.weights.startswith(("non-commercial", "S-Lab")):
                assert "NC" in (restrictions(normalised(family.licence.weights)) or ()), family.id

    def test_the_strictest_is_the_union_and_names_what_is_not_known(self):
        assert strictest(["mit", "cc-by-nc-4.0", "openrail++", None]) == (["NC", "USE", "ATTR_CC"], ["not stated"])


class TestModelCard:
    def test_fields(self):
        text = "---\nlicense: [mit, gpl-3.0]\nbase_model:\n- a/b\n- c/d\nco2_eq_emissions:\n  emissions: 12\n---\nshort"
        card = read_card(text)
        assert card.licence == "mit" and card.base_models == ("a/b", "c/d") and card.carbon == "12 g"
        assert card.notes == ("the card names 2 licences; the first counts",) and not card.informative

    def test_control_characters_do_not_reach_the_report(self):
        card = read_card('---\nlicense: "mi\\u001b[31mt"\nbase_model: "a\\nb"\n---\n')
        assert "\x1b" not in (card.licence or "") and card.base_models == ("a b",)

    @pytest.mark.parametrize(
        "text",
        ["---\nlicense: mit\n", "---\n- a\n---\n", "---\n: :\n  {\n---\n", "---\n!!python/object:os.system\n---\n"]
        + [f"---\nlicense: {value}\n---\n" for value in ("!!int ''", "!!bool x", "!!timestamp x")],
    )
    def test_a_broken_card_is_one_sentence(self, text):
        with pytest.raises(BadModelCard, match="front matter"):
            read_card(text)

    def test_lists_in_lists_are_not_written_out(self):
        nested = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
        card = read_card(f"---\n{nested}license: *a60\nbase_model: [*a60, a/b]\nco2_eq_emissions: *a60\n---\n")
        assert (card.licence, card.base_models, card.carbon) == (None, ("a/b",), "")

    def test_a_card_lies_beside_its_file(self, tmp_path):
        path = _file(tmp_path)
        assert card_beside(path) == ""
        (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
        assert read_card(card_beside(path)).licence == "mit"
        (tmp_path / "adapter.md").write_text("---\nlicense: gpl-3.0\n---\n", encoding="utf-8")
        assert read_card(card_beside(path)).licence == "gpl-3.0"


class TestReport:
    def test_drift_warns(self, tmp_path):
        card = "---\nlicense: mit\nbase_model: a/p\n---\n"
        report = check_file(read_header(_file(tmp_path)), card, base_licences=["cc-by-nc-4.0"])
        assert not report.ok and "has lost NC (non-commercial only), ATTR_CC (attribution)" in report.as_text()
        assert json.loads(report.as_json())["ok"] is False

    def test_a_false_claim_of_the_base_model_warns(self, tmp_path):
        right = _file(tmp_path, 768, **{"modelspec.architecture": "stable-diffusion-v1/lora"})
        assert check_file(read_header(right)).ok
        wrong = _file(tmp_path, 2048, **{"modelspec.architecture": "stable-diffusion-v1/lora"})
        assert "the metadata claims SD1.x, the tensors are of SDXL" in check_file(read_header(wrong)).as_text()

    def test_tensors_changed_after_saving_warn_and_metadata_does_not(self, tmp_path):
        tensors = data_sha256(_file(tmp_path))
        again = _file(tmp_path, 768, sshs_model_hash=tensors, ss_sd_model_name="base")
        assert check_file(read_header(again)).ok
        save_file({TO_K: torch.ones(4, 768)}, again, {"sshs_model_hash": tensors})
        assert "changed after saving" in check_file(read_header(again)).as_text()

    def test_files_trained_here_carry_the_hash_of_their_tensors(self, tmp_path):
        path = tmp_path / "mine.safetensors"
        write_tensors(path, {TO_K: torch.zeros(4, 768)}, {"base": "sd15"})
        text = check_file(read_header(path)).as_text()
        assert "the tensors are as they were saved" in text and "base model: sd15 (base)" in text
        save_file({TO_K: torch.ones(4, 768)}, path, dict(read_header(path).metadata))
        assert "changed after saving" in check_file(read_header(path)).as_text()
        # A run's own state is no file for anybody else.
        state = tmp_path / "mine.training_state"
        write_tensors(state, {"a": torch.zeros(2)}, {})
        assert "sshs_model_hash" not in read_header(state).metadata

    def test_the_base_file_is_compared_by_hash(self, tmp_path):
        base = tmp_path / "base.safetensors"
        save_file({"w": torch.zeros(2)}, base)
        of_it = read_header(_file(tmp_path, 768, ss_new_sd_model_hash=file_sha256(base)))
        assert "trained on this base file" in check_file(of_it, base=base).as_text()
        of_another = read_header(_file(tmp_path, 768, ss_new_sd_model_hash="0" * 64))
        assert "trained on another file" in check_file(of_another, base=base).as_text()

    def test_an_mit_adapter_on_a_research_encoder_is_non_commercial_in_use(self, tmp_path):
        parts = [Part("arcface_buffalo_l", "cc-by-nc-4.0"), Part("base", "creativeml-openrail-m")]
        text = check_file(read_header(_file(tmp_path)), "---\nlicense: mit\n---\n", parts=parts).as_text()
        assert "NC (non-commercial only), USE (use restrictions)" in text

    def test_hashing_can_be_cancelled(self, tmp_path):
        class Cancelled(Exception):
            pass

        def stop():
            raise Cancelled

        with pytest.raises(Cancelled):
            check_file(read_header(_file(tmp_path)), on_block=stop)


def _loaded(path: Path, family: str, base: str, variant: str | None = None, licence: str = "Apache-2.0") -> str:
    report = DetectionReport(
        family, family, base, None, None, "float16", 0, None, None, "MIT", licence, None, variant=variant
    )
    return licence_lines(path, report).splitlines()[-1]


class TestLoaders:
    @pytest.mark.parametrize(
        ("family", "variant", "base", "needed", "restriction"),
        [
            ("pulid_sdxl", "v1.1", "sdxl", ["antelopev2.zip", "EVA02_CLIP_L_336_psz14_s6B.pt"], True),
            ("pulid_flux", None, "flux", ["antelopev2.zip", "EVA02_CLIP_L_336_psz14_s6B.pt"], True),
            ("instantid", "instantid", "sdxl", ["antelopev2.zip", "ControlNetModel"], True),
            ("ip_adapter_faceid", "plain", "sd15", ["buffalo_l.zip"], True),
            ("ip_adapter_faceid", "plus_v2", "sd15", ["buffalo_l.zip", "models/image_encoder"], True),
            ("photomaker", "v1", "sdxl", [], False),
            ("photomaker", "v2", "sdxl", ["buffalo_l.zip"], True),
        ],
    )
    def test_in_use_counts_what_the_adapter_needs_and_no_other_adapter(
        self, tmp_path, family, variant, base, needed, restriction
    ):
        line = _loaded(_file(tmp_path), family, base, variant)
        assert ("NC (non-commercial only)" in line) == (restriction or base == "flux")
        assert "USE (use restrictions)" in line and f"base model {base}: " in line
        assert all(name in line for name in needed)
        assert line.partition("adapter.safetensors")[2].count(": ") == 2 + len(needed), line

    def test_a_file_trained_here_needs_the_encoder_it_names(self, tmp_path):
        line = _loaded(_file(tmp_path, encoder="transface_128x4"), "fact", "sd15", "v1")
        assert "face encoder transface_128x4: not stated" in line and "TransFace_S" not in line
        assert "ms1mv2_model_TransFace_S.pt: not stated" in _loaded(_file(tmp_path), "fact", "sd15", "v1")


def test_the_weights_of_the_pack_and_of_its_trainers_are_not_called_published_ones(tmp_path):
    shipped = registry.describe(ROOT / "demo_weights" / "drawn_fact.safetensors", kind="adapter")
    assert (shipped.weight_licence, shipped.commercial) == ("Apache-2.0", True)
    assert shipped.notes == ("trained on drawn faces by tools/train_demo_weights.py; no photographs",)
    told = licence_lines(ROOT / "demo_weights" / "drawn_fact.safetensors", shipped)
    assert "possible licence drift" not in told and "openrail" not in told and "in use: no restriction known" in told
    tensors = load_file(ROOT / "demo_weights" / "drawn_fact.safetensors")
    for metadata, licence in (({"finished_steps": "2"}, "that of whoever trained the file"), ({}, "not verified")):
        path = tmp_path / "mine.safetensors"
        save_file(tensors, path, metadata)
        found = registry.describe(path, kind="adapter")
        assert found.weight_licence.startswith(licence) and found.commercial is None
        assert bool(found.notes) == (not metadata)
