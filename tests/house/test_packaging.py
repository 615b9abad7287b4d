"""The package for the registry: metadata, what is shipped, and that the shipped part works in a fresh ComfyUI."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import tomllib
from pack import ROOT, register
from sources import Source

register()
sys.path.append(str(ROOT / "tools" / "dev"))

from check_package import missing_nodes, packed_files  # noqa: E402
from comfy_process import make_base  # noqa: E402

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_metadata_is_what_the_registry_asks_for(project: dict) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9._-]{0,98}", project["project"]["name"])
    assert "comfyui" not in project["project"]["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert project["project"]["license"] == {"file": "LICENSE"}
    assert {"PublisherId", "DisplayName"} <= set(project["tool"]["comfy"])
    assert project["project"]["urls"]["Repository"].startswith("https://")


def test_the_web_folder_is_named_once(project: dict) -> None:
    # WEB_DIRECTORY names it; a second name in the metadata would make the interface load every script twice.
    assert "web" not in project["tool"]["comfy"]


def test_users_install_only_what_comfyui_does_not_bring(project: dict) -> None:
    listed = requirement_lines("requirements.txt")
    assert [re.split(r"[<>=!~]", line)[0] for line in listed] == ["mtcnn"]
    assert project["project"]["dependencies"] == listed


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_knows_this_version(project: dict) -> None:
    assert f"\n## {project['project']['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["requirements-host.txt", "requirements-dev.txt", "requirements-tools.txt"])
def test_development_requirements_are_pinned(name: str) -> None:
    lines = [line.partition(";")[0].strip() for line in requirement_lines(name)]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))


def test_host_and_development_requirements_do_not_overlap() -> None:
    host, dev = (
        {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in requirement_lines(name)}
        for name in ("requirements-host.txt", "requirements-dev.txt")
    )
    assert not host & dev


def test_the_zip_holds_the_pack_and_nothing_of_its_workshop() -> None:
    files = packed_files()
    tops = {file.parts[0] for file in files}
    assert {"__init__.py", "LICENSE", "pyproject.toml", "requirements.txt"} <= tops
    assert {"faces", "adapters", "inject", "nodes"} <= tops
    assert not tops & {"tests", ".ci", "Makefile", "requirements-dev.txt", "requirements-host.txt"}
    assert not [file for file in files if "__pycache__" in file.parts]
    # tools/farm.py starts servers with it.
    assert [file.name for file in files if file.parts[:2] == ("tools", "dev")] == ["comfy_process.py"]
    weights = [file for file in files if file.suffix in (".safetensors", ".onnx", ".pt", ".pth", ".zip")]
    assert {file.parts[0] for file in weights} <= {"demo_weights"}
    assert sum((ROOT / file).stat().st_size for file in weights) <= 30 * 10**6
    assert sum((ROOT / file).stat().st_size for file in set(files) - set(weights)) < 8 * MEGABYTE


def test_shipped_files_import_only_shipped_files() -> None:
    files = set(packed_files())
    modules = {file.with_suffix("").as_posix().replace("/", ".") for file in files if file.suffix == ".py"}
    packages = {module.removesuffix(".__init__") for module in modules} | {parent(module) for module in modules}
    broken = [
        f"{file}:{item.line} {item.name}"
        for file in sorted(files)
        if file.suffix == ".py"
        for item in Source(file).imports
        if item.relative and item.name not in packages
    ]
    assert not broken


def parent(module: str) -> str:
    return module.rpartition(".")[0]


def test_the_shipped_part_registers_every_node_in_a_fresh_comfyui(tmp_path: Path) -> None:
    base = make_base(tmp_path / "a host")
    target = base / "custom_nodes" / "likeness"
    for file in packed_files():
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target / file)
    found, missing = missing_nodes(base, target)
    assert found
    assert not missing
