"""Every test here runs in the engine of a real ComfyUI."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator

import pytest
import torch
from host_inprocess import engine
from likeness_pack.inject.host import folder_paths
from likeness_pack.nodes import NODE_CLASS_MAPPINGS
from server_fixtures import node_info, server  # noqa: F401 (fixtures for every test here)


@pytest.fixture(autouse=True, scope="session")
def host_engine() -> None:
    """Import the engine before anything of the bridge asks for it."""
    engine()


@pytest.fixture(autouse=True, scope="session")
def nodes_as_the_host_runs_them(host_engine: None) -> None:
    """The host runs nodes in inference mode, whose tensors cannot become parameters or be written to outside it."""
    for node in NODE_CLASS_MAPPINGS.values():
        setattr(node, node.FUNCTION, torch.inference_mode()(getattr(node, node.FUNCTION)))


@pytest.fixture(autouse=True, scope="module")
def released_models() -> Iterator[None]:
    """The engine keeps every model that it has loaded; a file of tests leaves none behind for the next."""
    yield
    importlib.import_module("comfy.model_management").unload_all_models()
    gc.collect()


@pytest.fixture(autouse=True)
def same_model_folders(host_engine: None) -> Iterator[None]:
    """Folders that a test adds to the host's table leave it with the test, as their files do."""
    paths = folder_paths()
    table, before = paths.folder_names_and_paths, {}
    for name, entry in table.items():
        before[name] = list(entry[0])
    yield
    for name, entry in table.items():
        entry[0][:] = before.get(name, [])
    for cache in ("filename_list_cache", "_filename_list_cache"):
        getattr(paths, cache, {}).clear()
