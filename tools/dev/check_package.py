"""What the registry would check and ship: ``python tools/dev/check_package.py``.

Runs the registry's own validation and packing on a clone of HEAD, compares the zip with .comfyignore, unpacks it into a
fresh ComfyUI and looks for every node there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from comfy_process import PACK_FOLDER, ROOT, ComfyProcess, make_base
from import_cost import measure
from setup_env import script_of, tools_environment


def packed_files(root: Path = ROOT) -> list[Path]:
    """The files that ``comfy node pack`` ships, relative to ``root``: tracked by git and not in .comfyignore."""
    from pathspec import GitIgnoreSpec

    ignored = GitIgnoreSpec.from_lines((root / ".comfyignore").read_text(encoding="utf-8").splitlines())
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True)
    names = [name for name in listing.stdout.decode("utf-8").split("\0") if name]
    return sorted(Path(name) for name in names if not ignored.match_file(name) and (root / name).is_file())


def missing_nodes(base: Path, pack: Path) -> tuple[list[str], list[str]]:
    """Start a ComfyUI on ``base``, where ``pack`` lies unpacked; return (nodes found, nodes that did not register)."""
    expected = measure(pack, python=sys.executable).nodes
    with ComfyProcess(base, pack=None) as host:
        registered = set(host.object_info())
    return [name for name in expected if name in registered], [name for name in expected if name not in registered]


def comfy(folder: Path, *arguments: str) -> str:
    """Run the registry's command line in ``folder``, its settings in a scratch home; return what it printed."""
    script = script_of(tools_environment(), "comfy")
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "COLUMNS": "200", "NO_COLOR": "1"}
        environment["PATH"] = f"{script.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        command = [str(script), "--skip-prompt", "--no-enable-telemetry", *arguments]
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
    text = result.stdout + result.stderr
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{text}")
    return text


def validate(folder: Path) -> None:
    """The registry's validation; a warning stops as an error does, since warnings are announced to become errors."""
    text = comfy(folder, "node", "validate")
    if "All validation checks passed" not in text or "warning" in text.lower():
        raise SystemExit(f"the registry's validation is not clean:\n{text}")


def pack(folder: Path) -> Path:
    """Pack ``folder`` with the registry's tool; the zip must hold what .comfyignore leaves."""
    comfy(folder, "node", "pack")
    archive = folder / "node.zip"
    with zipfile.ZipFile(archive) as file:
        names = {Path(name) for name in file.namelist() if not name.endswith("/")}
    expected = set(packed_files(folder))
    if names != expected:
        difference = sorted(str(name) for name in names ^ expected)
        raise SystemExit(f"the zip and .comfyignore disagree about: {', '.join(difference)}")
    return archive


def main() -> int:
    """Validate, pack, unpack, start."""
    with tempfile.TemporaryDirectory(prefix="likeness package ", ignore_cleanup_errors=True) as scratch:
        clone, base = Path(scratch, "likeness"), make_base(Path(scratch, "host"))
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        validate(clone)
        print("validation: clean")
        archive = pack(clone)
        target = base / "custom_nodes" / PACK_FOLDER
        with zipfile.ZipFile(archive) as file:
            file.extractall(target)
            print(f"zip: {len(file.namelist())} files, {archive.stat().st_size / 2**20:.2f} MB")
        found, missing = missing_nodes(base, target)
    if missing or not found:
        raise SystemExit(f"nodes that did not register from the zip: {', '.join(missing) or 'all'}")
    print(f"fresh ComfyUI: {len(found)} nodes registered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
