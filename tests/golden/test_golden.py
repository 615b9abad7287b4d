"""Every part against every golden file that is at hand."""

from __future__ import annotations

import pytest
from harness import Golden, NeedsNewerHost, golden_folder, load_parts

PARTS = load_parts()
FILES = sorted(path for path in golden_folder().glob("*.safetensors") if path.stem in PARTS)


def test_there_are_golden_files() -> None:
    """An empty folder must not look like success."""
    assert FILES, f"no golden file with a part in {golden_folder()}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_part(path) -> None:  # type: ignore[no-untyped-def]
    """The project's module reproduces the authors' numbers."""
    try:
        with_no_grad(path)
    except NeedsNewerHost as reason:
        pytest.skip(f"needs a newer host: {reason}")


def with_no_grad(path) -> None:  # type: ignore[no-untyped-def]
    import torch

    with torch.no_grad():
        PARTS[path.stem](Golden(path))
