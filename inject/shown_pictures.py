"""Pictures that a node shows on the canvas, and that are no result: they lie in the host's temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .host import folder_paths


def shown_picture(picture: Any, prefix: str, ending: str = ".png", **saving: Any) -> dict[str, str]:
    """Write a Pillow image into the temporary folder.

    Args:
        picture: the image.
        prefix: of the file's name.
        ending: of the file's name, which decides its kind.
        saving: how Pillow shall write it.

    Returns:
        Filename, subfolder and type, as the host's view route and the ``images`` of a node's ``ui`` take them.
    """
    paths = folder_paths()
    root = paths.get_temp_directory()
    folder, name, counter, below, _ = paths.get_save_image_path(prefix, root, picture.width, picture.height)
    path = Path(folder) / f"{name}_{counter:05}_{ending}"
    picture.save(path, **saving)
    return {"filename": path.name, "subfolder": below, "type": "temp"}
