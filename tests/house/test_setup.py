"""The environment set-up: made once, made anew when the lists change, never trusted when half built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pack import ROOT

sys.path.append(str(ROOT / "tools" / "dev"))

import run_tests  # noqa: E402
import setup_env  # noqa: E402


class Workshop:
    """A set-up with an installer that only counts, and virtual environments of two files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "venv"
        self.source = folder / "requirements.txt"
        self.source.write_text("a==1\n", encoding="utf-8")
        self.installs = 0
        self.fails = False

    def create(self, folder: Path) -> None:
        python = setup_env.python_of(folder)
        python.parent.mkdir(parents=True)
        python.touch()
        (folder / "pyvenv.cfg").touch()

    def install(self, python: Path) -> None:
        assert python.exists()
        assert not (self.folder / "old").exists()
        self.installs += 1
        (self.folder / "old").touch()
        if self.fails:
            raise SystemExit("no such package")

    def ensure(self) -> Path:
        return setup_env.ensure(self.folder, [self.source], self.install)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)

    class Builder:
        def __init__(self, with_pip: bool) -> None:
            assert with_pip

        def create(self, folder: Path) -> None:
            made.create(folder)

    monkeypatch.setattr(setup_env.venv, "EnvBuilder", Builder)
    return made


def test_it_is_made_once(workshop: Workshop) -> None:
    assert workshop.ensure() == setup_env.python_of(workshop.folder)
    workshop.ensure()
    assert workshop.installs == 1


def test_changed_requirements_make_it_anew(workshop: Workshop) -> None:
    workshop.ensure()
    workshop.source.write_text("a==2\n", encoding="utf-8")
    workshop.ensure()
    assert workshop.installs == 2


def test_an_interrupted_set_up_is_not_trusted(workshop: Workshop) -> None:
    workshop.fails = True
    with pytest.raises(SystemExit, match="no such package"):
        workshop.ensure()
    workshop.fails = False
    workshop.ensure()
    workshop.ensure()
    assert workshop.installs == 2


def test_a_lost_interpreter_makes_it_anew(workshop: Workshop) -> None:
    setup_env.python_of(workshop.ensure().parents[1]).unlink()
    workshop.ensure()
    assert workshop.installs == 2


def test_a_folder_of_something_else_is_never_removed(workshop: Workshop) -> None:
    workshop.folder.mkdir()
    (workshop.folder / "my thesis.txt").touch()
    with pytest.raises(SystemExit, match="not a virtual environment"):
        workshop.ensure()
    assert (workshop.folder / "my thesis.txt").exists()


def test_a_missing_interpreter_for_the_checkout_is_named() -> None:
    with pytest.raises(SystemExit, match="COMFYUI_PYTHON is not"):
        run_tests.upstream_python({"COMFYUI_PATH": "somewhere"})


def test_an_interpreter_without_pytest_is_named(tmp_path: Path) -> None:
    setup_env.venv.EnvBuilder(with_pip=False).create(tmp_path)
    python = str(setup_env.python_of(tmp_path))
    with pytest.raises(SystemExit, match="install pytest there"):
        run_tests.upstream_python({"COMFYUI_PYTHON": python})


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not a ComfyUI checkout"):
        setup_env.upstream_environment(tmp_path, tmp_path / "venv")
