"""Likeness: face identity for ComfyUI. This file shows the host the nodes, the web folder and the model folders."""

from __future__ import annotations

WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}

# Test runners import a root __init__.py as a plain module, where relative imports cannot work.
if __package__:
    from .inject.model_folders import register_model_folders
    from .inject.model_route import register_model_route
    from .inject.prompt_hook import register_prompt_handler
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    register_model_folders()
    register_model_route()
    register_prompt_handler()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
