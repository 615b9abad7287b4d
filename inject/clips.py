"""Clips in the host's folders, and its VIDEO where it has one."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..faces.errors import LikenessError
from .file_names import checked_prefix, file_stamp, writing
from .host import folder_paths
from .model_folders import input_folder, output_folder

NONE = "none"
_NAMES = "mp4 m4v mov mkv webm avi gif mpg mpeg ts mts m2ts wmv flv 3gp ogv apng y4m h264 mjpeg"
ENDINGS = frozenset(f".{name}" for name in _NAMES.split())


class MissingClip(LikenessError):
    """A clip that is not in the host's folders, or none chosen."""


def list_clips() -> list[str]:
    """Names of the clips in the input folder, and the word for none."""
    folder = input_folder()
    names = (one.name for one in folder.iterdir() if one.suffix.lower() in ENDINGS) if folder.is_dir() else ()
    return [*sorted(names), NONE]


def clip_exists(name: str) -> bool | str:
    """For a node's VALIDATE_INPUTS: names in sub-folders and of other folders (``a.mp4 [output]``) are good too."""
    if name == NONE or _inside(name) is not None:
        return True
    return f"there is no clip {name} in the input folder"


def clip_key(name: str) -> str:
    """For a node's IS_CHANGED: another one when the file changes."""
    path = _inside(name) if name != NONE else None
    return name if path is None else file_stamp(path)


def _inside(name: str) -> Path | None:
    """The file of a name, never outside the host's own folders."""
    paths = folder_paths()
    path = Path(paths.get_annotated_filepath(name)).resolve()
    roots = (paths.get_input_directory(), paths.get_output_directory(), paths.get_temp_directory())
    return path if path.is_file() and any(path.is_relative_to(Path(root).resolve()) for root in roots) else None


@contextmanager
def clip_file(name: str, video: Any = None) -> Iterator[Path]:
    """The file of a clip's name, or of a VIDEO, which goes before.

    A VIDEO that lies in memory is written to a file of the host's temporary folder, and removed afterwards.

    Raises:
        MissingClip: neither a VIDEO nor a file of that name.
    """
    if video is None:
        yield _named(name)
        return
    source = _stream_source(video)
    if isinstance(source, str | Path):
        yield Path(source)
        return
    folder = Path(folder_paths().get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as inside:
        path = Path(inside) / "video.mp4"
        if source is None:
            video.save_to(str(path))
        else:
            path.write_bytes(source.getvalue())
        yield path


def _stream_source(video: Any) -> Any:
    """Path or bytes of a VIDEO; None where it has to be saved first."""
    try:
        return video.get_stream_source() if hasattr(video, "get_stream_source") else None
    except ValueError:
        # Upstream 0.3.64 asks PyAV for a container without naming one when the frames lie in memory.
        return None


def _named(name: str) -> Path:
    found = _inside(name) if name and name != NONE else None
    if found is not None:
        return found
    clips = list_clips()[:-1]
    raise MissingClip(
        "clip" if name in ("", NONE) else name,
        expected="a file of the input folder, or a connected VIDEO",
        found=f"{len(clips)} clips there ({', '.join(clips[:5])})" if clips else "no clip there",
        cure=f"put the clip into {input_folder()}, refresh the page and choose it",
    )


def new_file(prefix: str, ending: str, width: int, height: int) -> tuple[Path, str]:
    """A new file of the output folder: (path, name below the output folder), numbered as the host numbers pictures."""
    root = output_folder()
    # The host would make a hidden file of an empty name.
    prefix = checked_prefix(prefix).strip() or "likeness"
    with writing(root / prefix):
        folder, name, counter, below, _ = folder_paths().get_save_image_path(prefix, str(root), width, height)
    path = Path(folder) / f"{name}_{counter:05}_{ending}"
    return path, (Path(below) / path.name).as_posix()


def has_video() -> bool:
    """Whether the host has the type VIDEO (upstream since May 2025)."""
    try:
        importlib.import_module("comfy_api.input_impl")
    except ImportError:
        return False
    return True


def as_video(path: Path) -> Any:
    """The host's VIDEO of a file; where it has none, the path."""
    if not has_video():
        return str(path)
    return importlib.import_module("comfy_api.input_impl").VideoFromFile(str(path))


def shown(text: str, name: str, *outputs: Any) -> dict[str, Any]:
    """A node's result that shows a text, and the clip where the host can play one."""
    ui: dict[str, Any] = {"text": [text]}
    if has_video():
        ui |= {"images": [picture_entry(name)], "animated": (True,)}
    return {"ui": ui, "result": outputs}


def picture_entry(name: str) -> dict[str, str]:
    """How the host is told of a picture that was saved under ``name`` below the output folder."""
    path = Path(name)
    below = "" if path.parent == Path() else path.parent.as_posix()
    return {"filename": path.name, "subfolder": below, "type": "output"}


def graph_metadata(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The graph, as the host's own nodes write it into files; nothing where the user has turned that off."""
    if getattr(importlib.import_module("comfy.cli_args").args, "disable_metadata", False):
        return {}
    found = {name: json.dumps(value) for name, value in (extra or {}).items()}
    return found | ({"prompt": json.dumps(prompt)} if prompt is not None else {})
