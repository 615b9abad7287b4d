"""Importing the pack is cheap because it loads nothing: asserted on what is loaded, never on a clock.

The seconds themselves are printed by tools/dev/import_cost.py and ``make bench``.
"""

from __future__ import annotations

import pytest
from pack import register

register()

from likeness_pack.tools.dev.import_cost import ImportCost, measure  # noqa: E402

OPTIONAL = ("mtcnn", "insightface", "onnxruntime", "dlib", "cv2", "diffusers")
# The node classes and what the model folders need; a node's work is imported by its first call.
OWN_MODULES = 60


@pytest.fixture(scope="module")
def cost() -> ImportCost:
    return measure()


def test_nothing_but_the_pack_is_loaded(cost: ImportCost) -> None:
    assert cost.own > 5
    assert not cost.foreign, f"loaded at import beside the pack and the standard library: {cost.foreign}"


def test_the_work_of_the_nodes_is_imported_by_its_first_call(cost: ImportCost) -> None:
    assert cost.own <= OWN_MODULES


def test_the_search_path_stays(cost: ImportCost) -> None:
    assert cost.path_kept


def test_every_node_registers_without_any_optional_package(cost: ImportCost) -> None:
    assert cost.nodes
    assert all(name.startswith("Likeness") for name in cost.nodes)
    assert measure(blocked=OPTIONAL).nodes == cost.nodes
