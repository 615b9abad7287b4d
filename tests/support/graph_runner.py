"""Runs a workflow in API form in this process, node by node, as the host's queue would."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from likeness_pack import nodes as ours

Outputs = tuple[Any, ...]
# What stands in for a node: is given its inputs, returns its outputs.
StandIn = Callable[[dict[str, Any]], Outputs]


def known_nodes(extras: Sequence[str] = ()) -> dict[str, Any]:
    """The host's nodes in its older and its newer form, those of the named ``comfy_extras.nodes_...``, and ours."""
    found: dict[str, Any] = {}
    for name in ("nodes", "comfy.nodes.base_nodes", *(f"comfy_extras.nodes_{extra}" for extra in extras)):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            found |= getattr(module, "NODE_CLASS_MAPPINGS", {})
            for one in vars(module).values():
                if inspect.isclass(one) and hasattr(one, "define_schema") and one.__module__ == module.__name__:
                    found[one.define_schema().node_id] = one
    return found | ours.NODE_CLASS_MAPPINGS


def run_graph(
    graph: Mapping[str, Any], stand_ins: Mapping[str, StandIn] | None = None, extras: Sequence[str] = ()
) -> dict[str, Outputs]:
    """Outputs of every node by its title.

    Args:
        graph: entries by number of node.
        stand_ins: by class name; for loaders of files that are not there, and for nodes that save.
        extras: see `known_nodes`.
    """
    known, replaced = known_nodes(extras), stand_ins or {}
    done: dict[str, Outputs] = {}

    def result(number: str) -> Outputs:
        if number not in done:
            entry = graph[number]
            given = {k: result(v[0])[v[1]] if isinstance(v, list) else v for k, v in entry["inputs"].items()}
            kind = entry["class_type"]
            done[number] = replaced[kind](given) if kind in replaced else _called(known[kind], given)
        return done[number]

    with torch.inference_mode():
        return {entry["_meta"]["title"]: result(number) for number, entry in graph.items()}


def _called(node: Any, given: dict[str, Any]) -> Outputs:
    if hasattr(node, "define_schema"):
        with mock.patch.object(node, "hidden", mock.Mock(extra_pnginfo=None, prompt=None), create=True):
            return tuple(node.execute(**given).args)
    found = getattr(node(), node.FUNCTION)(**given)
    found = asyncio.run(found) if inspect.iscoroutine(found) else found
    return tuple(found["result"] if isinstance(found, dict) else found)
