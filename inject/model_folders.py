"""Model folders: ours under the host's models folder, and those that other packs left, read where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.errors import MissingModelFile
from ..adapters.model_table import missing_file_error, published_as
from ..adapters.nested import printable
from .host import folder_paths

EXTENSIONS = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
OURS = ("face_encoders", "face_adapters", "face_detectors", "face_parsers", "face_swappers")
# The small weights that come with the pack: loaders list those they read, so that a first graph needs no download.
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo_weights"


@dataclass(frozen=True)
class FileKind:
    """Where the files of one loader are looked for: our folder first, then those of other packs.

    Attributes:
        own: our folder.
        peers: folders of other packs.
        extensions: of the files that are listed.
        flat: peers whose sub-folders hold files of another kind.
        shipped: files of the pack itself; a file of the same name in a folder goes before it.
    """

    own: str
    peers: tuple[str, ...] = ()
    extensions: frozenset[str] = EXTENSIONS
    flat: frozenset[str] = frozenset()
    shipped: tuple[str, ...] = ()


ADAPTERS = FileKind(
    "face_adapters", ("ipadapter", "instantid", "pulid", "photomaker"), shipped=("drawn_fact.safetensors",)
)
ENCODERS = FileKind("face_encoders", ("facerestore_models",), shipped=("drawn_encoder.safetensors",))
# Files of voices lie beside those of faces, or where the host keeps its own audio encoders.
AUDIO_ENCODERS = FileKind("face_encoders", ("audio_encoders",))
# Whole models, where the host keeps them; older hosts know the second name.
DIFFUSION = FileKind("diffusion_models", ("unet",))
# The whole checkpoint of HunyuanVideo-Avatar is one of those; its added tensors alone lie beside other adapters.
AVATAR = FileKind("diffusion_models", ("unet", "face_adapters"))
DETECTORS = FileKind("face_detectors", ())
SWAPPERS = FileKind(
    "face_swappers", ("insightface", "reswapper", "hyperswap"), EXTENSIONS | {".onnx"}, frozenset({"insightface"})
)
# Folders in which the host shall list ONNX files too.
WITH_ONNX = frozenset({"face_swappers", "insightface", "reswapper", "hyperswap"})
PEER_FOLDERS = ("ipadapter", "instantid", "pulid", "photomaker", "insightface", "hyperswap", "reswapper")


def register_model_folders() -> None:
    """Tell the host our folders and those of other packs; extra model paths of the user stay first and are honoured."""
    paths = folder_paths()
    for name in (*OURS, *PEER_FOLDERS):
        _register(paths, name)


def _register(paths: Any, name: str) -> None:
    """Add a folder under ``models``.

    The host's table may know the name already from the user's extra model paths, there with an empty extension set
    (which means every file); and on the package host reading an unknown name would create a folder on disk.
    """
    table = paths.folder_names_and_paths
    folder = str(Path(paths.models_dir) / name)
    listed = EXTENSIONS | {".onnx"} if name in WITH_ONNX else EXTENSIONS
    if name not in set(table.keys()):
        table[name] = ([folder], set(listed))
        return
    known, extensions = table[name][0], table[name][1]
    if folder not in list(known):
        known.append(folder)
    if isinstance(extensions, set):
        extensions.update(listed)


def list_files(kind: FileKind) -> list[str]:
    """Names for a dropdown: files of our folder as they are, those of other packs' folders behind ``[folder] ``, and
    last those that come with the pack."""
    names = sorted(_names(kind.own, kind.extensions))
    for peer in kind.peers:
        found = sorted(_names(peer, kind.extensions))
        names += [f"[{peer}] {name}" for name in found if peer not in kind.flat or Path(name).name == name]
    return names + [name for name in kind.shipped if name not in names and (DEMO_WEIGHTS / name).is_file()]


def _names(folder: str, extensions: frozenset[str]) -> Iterable[str]:
    paths = folder_paths()
    if folder not in set(paths.folder_names_and_paths.keys()):
        return []
    try:
        names = paths.get_filename_list(folder)
    except FileNotFoundError:
        # The host remembers the sub-folders of its last look, and fails where one was removed or renamed since.
        names = paths.get_filename_list_(folder)[0]
    return [name for name in names if Path(name).suffix.lower() in extensions]


def find_file(kind: FileKind, choice: str) -> Path:
    """The file behind a dropdown entry.

    Raises:
        MissingModelFile: naming the folders that were searched and the files found there.
    """
    choice = choice if isinstance(choice, str) else ""
    choice = _as_listed(kind, choice) or choice
    folder, name = _split(kind, choice)
    found = folder_paths().get_full_path(folder, name)
    if found is not None and Path(found).is_file():
        return Path(found)
    if choice in kind.shipped and (DEMO_WEIGHTS / choice).is_file():
        return DEMO_WEIGHTS / choice
    raise _missing(kind, choice)


def listed(kind: FileKind, choice: object, others: Collection[str] = ()) -> bool | str:
    """For a node's ``VALIDATE_INPUTS``: whether a dropdown has the choice, else one sentence about the missing file.

    The host would say no more than that the value is not in its list. Either slash stands between folders, since graphs
    travel between systems; what another node gives (None here) is not known yet.

    Args:
        kind: the dropdown's files.
        choice: what the graph says.
        others: entries of the dropdown that are no files.
    """
    if choice is None or choice in others or (isinstance(choice, str) and _as_listed(kind, choice) is not None):
        return True
    return str(_missing(kind, str(choice)))


def _as_listed(kind: FileKind, choice: str) -> str | None:
    """The dropdown's entry of that name, whichever slash it is written with."""
    names = {name.replace("\\", "/"): name for name in list_files(kind)}
    return names.get(choice.replace("\\", "/"))


def _missing(kind: FileKind, choice: str) -> MissingModelFile:
    folder, name = _split(kind, choice)
    files = list_files(kind)
    found = f"{len(files)} other files ({', '.join(files[:5])})" if files else "no model file there"
    row = published_as(name, {kind.own, *kind.peers})
    if row is not None:
        return missing_file_error(row.id, found)
    return MissingModelFile(
        printable(name) or "model file",
        expected=f"a file of that name in models/{folder}",
        found=found,
        cure=f"put the file into models/{folder} and refresh the page",
    )


def _split(kind: FileKind, choice: str) -> tuple[str, str]:
    """The folder and the name in it that a dropdown entry means."""
    if choice.startswith("[") and "] " in choice:
        folder, name = choice[1:].split("] ", 1)
        return folder, name
    return kind.own, choice


def full_path(folder: str, name: str) -> Path | None:
    """The file of that name in one of the host's model folders, or None."""
    paths = folder_paths()
    if folder not in set(paths.folder_names_and_paths.keys()):
        return None
    try:
        found = paths.get_full_path(folder, name)
    except ValueError:
        # A name on another drive, or with a NUL.
        return None
    return Path(found) if found is not None and Path(found).is_file() else None


def folder_roots(name: str) -> list[Path]:
    """Every existing folder on disk that the host searches under ``name``."""
    table = folder_paths().folder_names_and_paths
    if name not in set(table.keys()):
        return []
    return [Path(path) for path in table[name][0] if Path(path).is_dir()]


def output_folder() -> Path:
    """The host's output folder."""
    return Path(folder_paths().get_output_directory())


def input_folder() -> Path:
    """The host's input folder."""
    return Path(folder_paths().get_input_directory())
