"""Web interfaces of newer ComfyUI, to try the pack's scripts in: ``python tools/dev/frontends.py`` fetches what lacks.

The package on the package index holds the built interface. One version comes with the development requirements; any
other is unpacked beside that environment's own files.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

PACKAGE = "comfyui_frontend_package"
CURRENT, LATEST = "1.27.10", "1.58.1"
FOLDER = Path(sys.prefix, "frontends")


def static_folder(version: str) -> Path | None:
    """The folder with the built interface of a version, or None where it was not fetched."""
    spec = importlib.util.find_spec(PACKAGE)
    installed = spec is not None and spec.origin is not None and metadata.version(PACKAGE) == version
    root = Path(spec.origin).parent if installed and spec and spec.origin else FOLDER / version / PACKAGE
    folder = root / "static"
    return folder if (folder / "index.html").is_file() else None


def fetch(version: str) -> Path:
    """Download and unpack a version; returns its folder.

    Raises:
        SystemExit: pip could not get it; with pip's words.
    """
    found = static_folder(version)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--dest", folder, f"{PACKAGE}=={version}"]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(FOLDER / version)
    return FOLDER / version / PACKAGE / "static"


def main() -> int:
    """Fetch every version that the browser tests use."""
    for version in (CURRENT, LATEST):
        print(f"interface {version}: {fetch(version)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
