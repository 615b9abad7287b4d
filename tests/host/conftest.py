"""Every test here runs in the engine of a real ComfyUI."""

from __future__ import annotations

import pytest
from host_inprocess import engine
from server_fixtures import node_info, server  # noqa: F401 (fixtures for every test here)


@pytest.fixture(autouse=True, scope="session")
def host_engine() -> None:
    """Import the engine before anything of the bridge asks for it."""
    engine()
