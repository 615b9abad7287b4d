"""Makes the development environments; needs only Python 3.11 and a package index, on Linux, macOS and Windows.

    python tools/dev/setup_env.py                               .venv: ComfyUI package, test tools, optional packages
    python tools/dev/setup_env.py --upstream PATH --venv DIR    an interpreter for a ComfyUI checkout at PATH
    python tools/dev/setup_env.py --tools                       .venv-tools: the registry's checker
    python tools/dev/setup_env.py --farm                        .venv-farm: Ray, for tools/farm.py

Run again it returns at once: a stamp with the hash of the requirement files is written last, and an environment
without a valid stamp is made anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).with_name("torchvision_shim.py")
STAMP = "likeness-stamp"
RECIPE = "3"  # raise it when the steps below change
HOST, DEV, TOOLS = "requirements-host.txt", "requirements-dev.txt", "requirements-tools.txt"
FARM = "requirements-farm.txt"
TORCH = ("torch==2.13.0", "torchvision==0.28.0")


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def script_of(python: Path, name: str) -> Path:
    """The console script ``name`` beside the interpreter ``python``."""
    return python.with_name(f"{name}.exe" if os.name == "nt" else name)


def stamp_of(sources: Sequence[Path], base: str = sys.version) -> str:
    """Hash of the recipe, the Python it was made with and the contents of ``sources``."""
    digest = hashlib.sha256(f"{RECIPE}\n{base}\n".encode())
    for source in sources:
        digest.update(source.read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def is_current(folder: Path, stamp: str) -> bool:
    """Whether the environment was finished with these sources and its interpreter is still there."""
    file = folder / STAMP
    return python_of(folder).exists() and file.is_file() and file.read_text(encoding="utf-8") == stamp


def ensure(folder: Path, sources: Sequence[Path], install: Callable[[Path], None]) -> Path:
    """Make the environment in ``folder`` unless it is current; return its interpreter.

    What an interrupted run left behind is removed first: pip cannot tell a half-written package from a whole one.
    """
    stamp = stamp_of(sources)
    python = python_of(folder)
    if is_current(folder, stamp):
        return python
    if folder.exists():
        if not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
            raise SystemExit(f"{folder} is not a virtual environment: remove it or name another folder.")
        shutil.rmtree(folder)
    started = time.perf_counter()
    say(f"making {folder}")
    venv.EnvBuilder(with_pip=True).create(folder)
    install(python)
    (folder / STAMP).write_text(stamp, encoding="utf-8")
    say(f"{folder} is ready: {_megabytes(folder)} MB, {time.perf_counter() - started:.0f} s")
    return python


def say(text: str) -> None:
    """One line for the person at the terminal, before the output of the next command."""
    print(text, flush=True)


def pip(python: Path, *arguments: str | Path) -> None:
    """Run ``pip install`` in an environment; stop with pip's own message when it fails."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [str(argument) for argument in arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")


def install_host(python: Path) -> None:
    """The ComfyUI package, the test tools and the optional packages."""
    # torch with its dependencies, since those differ between machines; all else as listed.
    pip(python, TORCH[0], "-c", ROOT / HOST)
    pip(python, "--no-deps", "-r", ROOT / HOST, "-r", ROOT / DEV)
    repair_torchvision(python)


def install_upstream(python: Path, checkout: Path) -> None:
    """The checkout's own requirements beside the tested torch, and what the host tests import."""
    listed = (checkout / "requirements.txt").read_text(encoding="utf-8").splitlines()
    # torchaudio has no build for every torch; ComfyUI runs without it but for its audio nodes.
    wanted = [line for line in listed if not re.match(r"(torch|torchvision|torchaudio)\b", line.strip())]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(wanted), encoding="utf-8")
        pip(python, TORCH[0], "-r", requirements, "requests")
        pip(python, "--no-deps", TORCH[1], "-r", ROOT / DEV)
    repair_torchvision(python)


def install_tools(python: Path) -> None:
    """The registry's command line, kept out of the host's environment because of its thirty dependencies."""
    pip(python, "-r", ROOT / TOOLS)


def install_farm(python: Path) -> None:
    """Ray alone: the ComfyUI processes of a farm run in their own environment."""
    pip(python, "--no-deps", "-r", ROOT / FARM)


def repair_torchvision(python: Path) -> None:
    """Add the shim where torchvision and torch were built for different devices; refuse where it does not help."""
    probe = [str(python), "-c", "import torchvision"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    packages = Path(_site_packages(python))
    shutil.copyfile(SHIM, packages / "likeness_torchvision_shim.py")
    line = "import likeness_torchvision_shim; likeness_torchvision_shim.install()\n"
    (packages / "likeness_torchvision_shim.pth").write_text(line, encoding="utf-8")
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"torchvision cannot be imported in {python}:\n{result.stderr}")


def _site_packages(python: Path) -> str:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _megabytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) // 2**20


def host_environment(folder: Path = ROOT / ".venv") -> Path:
    """The interpreter of the development environment, made if needed."""
    return ensure(folder, [ROOT / HOST, ROOT / DEV, SHIM], install_host)


def tools_environment(folder: Path = ROOT / ".venv-tools") -> Path:
    """The interpreter of the environment with the registry's checker, made if needed."""
    return ensure(folder, [ROOT / TOOLS], install_tools)


def farm_environment(folder: Path = ROOT / ".venv-farm") -> Path:
    """The interpreter of the environment with Ray, made if needed."""
    return ensure(folder, [ROOT / FARM], install_farm)


def upstream_environment(checkout: Path, folder: Path) -> Path:
    """An interpreter that runs the ComfyUI checkout and the host tests, made if needed."""
    sources = [checkout / "requirements.txt", ROOT / DEV, SHIM]
    if not sources[0].is_file():
        raise SystemExit(f"{checkout} is not a ComfyUI checkout: it has no requirements.txt.")
    return ensure(folder, sources, lambda python: install_upstream(python, checkout))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="folder of the environment")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--upstream", type=Path, metavar="PATH", help="make an interpreter for this ComfyUI checkout")
    kind.add_argument("--tools", action="store_true", help="make the environment of the registry's checker")
    kind.add_argument("--farm", action="store_true", help="make the environment with Ray, for tools/farm.py")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        raise SystemExit(f"{sys.executable} is Python {sys.version.split()[0]}: run this with Python 3.11 or newer.")
    if arguments.upstream:
        if arguments.venv is None:
            parser.error("--upstream needs --venv DIR")
        python = upstream_environment(arguments.upstream.resolve(), arguments.venv.resolve())
        say(f"COMFYUI_PATH={arguments.upstream.resolve()} COMFYUI_PYTHON={python}")
    elif arguments.tools:
        tools_environment(*([arguments.venv.resolve()] if arguments.venv else []))
    elif arguments.farm:
        farm_environment(*([arguments.venv.resolve()] if arguments.venv else []))
    else:
        host_environment(*([arguments.venv.resolve()] if arguments.venv else []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
