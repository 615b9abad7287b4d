"""Provenance of model files: hashes, metadata and licence drift of the fixture."""

from __future__ import annotations

import json
from typing import Any

from harness import DATA, Golden, part
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.file_hash import file_sha256
from likeness_pack.evaluation.lineage.architecture import base_of_claims, base_of_tensors
from likeness_pack.evaluation.lineage.checks import data_hash, drift
from likeness_pack.evaluation.lineage.hashes import data_sha256, header_length, legacy_hash
from likeness_pack.evaluation.lineage.licences import lost
from likeness_pack.evaluation.lineage.model_card import read_card
from likeness_pack.evaluation.lineage.report import check_file


@part("provenance_fixture")
def provenance_fixture(golden: Golden) -> None:
    """Header, hashes, claimed and real base, and the licence drift of six pairs of cards, all exact."""
    expected = _expected(golden)
    header = read_header(golden.path)
    assert dict(header.metadata) == expected["metadata"] and len(header.tensors) == expected["tensor_count"]
    assert header_length(golden.path) == expected["header_len"]
    assert file_sha256(golden.path) == expected["file_sha256"]
    assert data_sha256(golden.path) == expected["data_sha256"]
    assert legacy_hash(golden.path) == expected["legacy_hash_8"]
    assert base_of_tensors(header) == base_of_claims(header.metadata) == "SD1.x"

    spec = header.metadata["modelspec.hash_sha256"].removeprefix("0x")
    assert (spec == data_sha256(golden.path)) == expected["modelspec_hash_ok"]
    assert data_hash(header.metadata, data_sha256(golden.path)).severity == "info"
    assert data_hash(header.metadata, file_sha256(golden.path)).severity == "warning"
    assert check_file(header).ok
    for card in expected["cards"]:
        _check_card(card)


def _check_card(card: dict[str, Any]) -> None:
    front = "\n".join(f"{name}: {value}" for name, value in card["child"].items())
    child = read_card(f"---\n{front}\n---\n")
    assert child.base_models == tuple(filter(None, [card["child"].get("base_model")]))
    parents = [card["parent"]["license"]]
    assert lost(parents, child.licence) == card["lost"], card["name"]
    assert (drift(child.licence, parents).severity == "warning") == bool(card["lost"]), card["name"]


def _expected(golden: Golden) -> Any:
    name = f"{golden.path.stem}.json"
    path = golden.path.with_name(name)
    return json.loads((path if path.exists() else DATA / name).read_text(encoding="utf-8"))
