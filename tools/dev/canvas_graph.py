"""Turns a workflow in API form into a canvas graph in the old format, which opens in old and new interfaces alike.

``python tools/dev/canvas_graph.py`` starts the host, asks it for the node definitions and rewrites
``workflows/*.json`` from ``workflows/api/*.json``. Workflows with nodes that this host lacks are left alone and named:
set COMFYUI_PATH to write them on a newer one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
COLUMN, ROW_GAP, WIDTH = 380, 60, 320
LINE, WIDGET, TEXT, PICTURE = 20, 24, 110, 240

Api = Mapping[str, Mapping[str, Any]]
Info = Mapping[str, Mapping[str, Any]]


def is_widget(spec: Any) -> bool:
    """Whether an input of an object_info entry is set on the node itself."""
    return isinstance(spec[0], list) or spec[0] in WIDGETS


def input_specs(info: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a node in the order of its definition."""
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def depth(api: Api, node: str) -> int:
    """Length of the longest way from a node without inputs."""
    sources = [value[0] for value in api[node]["inputs"].values() if isinstance(value, list)]
    return 1 + max((depth(api, source) for source in sources), default=-1)


def column_of(api: Api, node: str) -> int:
    """Column on the canvas: the depth, but a node without inputs stands just before the first one that takes it."""
    takers = [name for name, entry in api.items() if [node] in [v[:1] for v in entry["inputs"].values() if _fed(v)]]
    return min((depth(api, name) - 1 for name in takers), default=0) if not depth(api, node) else depth(api, node)


def _fed(value: Any) -> bool:
    return isinstance(value, list)


def widget_values(specs: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
    """Values in the order of the widgets, with those that the interface adds by itself."""
    values: list[Any] = []
    for name, spec in specs.items():
        if not is_widget(spec):
            continue
        options = spec[1] if len(spec) > 1 else {}
        given = inputs.get(name, options.get("default"))
        values.append(options.get("default") if isinstance(given, list) else given)
        if name in ("seed", "noise_seed"):
            values.append("fixed")
        if options.get("image_upload"):
            values.append("image")
    return values


def sockets(specs: Mapping[str, Any], info: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The input sockets: those of the definition, then widgets that a link feeds.

    Unlinked optional sockets of the host's own nodes are left out: hosts differ in them, and newer ones add theirs.
    """
    ours, optional = info["name"].startswith("Likeness"), info["input"].get("optional", {})
    plain = [name for name, spec in specs.items() if not is_widget(spec)]
    kept = [name for name in plain if ours or name not in optional or name in inputs]
    fed = [name for name, spec in specs.items() if is_widget(spec) and isinstance(inputs.get(name), list)]
    return [{"name": name, "type": specs[name][0], "link": None} for name in kept] + [
        {"name": name, "type": _kind(specs[name]), "link": None, "widget": {"name": name}} for name in fed
    ]


def _kind(spec: Any) -> str:
    return "COMBO" if isinstance(spec[0], list) else str(spec[0])


def height(specs: Mapping[str, Any], inputs: int, outputs: int) -> int:
    """A height that shows every widget."""
    rows = max(outputs, inputs)
    options = [spec[1] if len(spec) > 1 else {} for spec in specs.values() if is_widget(spec)]
    widgets = sum(TEXT if o.get("multiline") else PICTURE if o.get("image_upload") else WIDGET for o in options)
    return 40 + rows * LINE + widgets


def canvas_graph(api: Api, info: Info) -> dict[str, Any]:
    """The canvas graph of a workflow; node ids and titles are kept."""
    links: list[list[Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    columns: dict[int, int] = {}
    for order, name in enumerate(sorted(api, key=lambda node: (depth(api, node), int(node)))):
        entry, definition = api[name], info[api[name]["class_type"]]
        column, specs = column_of(api, name), input_specs(definition)
        inputs = sockets(specs, definition, entry["inputs"])
        size = [WIDTH, height(specs, len(inputs), len(definition["output"]))]
        position = [60 + column * COLUMN, 60 + columns.get(column, 0)]
        columns[column] = columns.get(column, 0) + size[1] + ROW_GAP
        nodes[name] = {
            "id": int(name),
            "type": entry["class_type"],
            "pos": position,
            "size": size,
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": n, "type": t, "links": [], "slot_index": slot}
                for slot, (n, t) in enumerate(zip(definition["output_name"], definition["output"], strict=True))
            ],
            "title": entry.get("_meta", {}).get("title", entry["class_type"]),
            "properties": {"Node name for S&R": entry["class_type"]},
            "widgets_values": widget_values(specs, entry["inputs"]),
        }
    for name, entry in api.items():
        for input_name, value in entry["inputs"].items():
            if isinstance(value, list):
                _link(nodes[value[0]], value[1], nodes[name], input_name, links)
    return {
        "last_node_id": max(map(int, api)),
        "last_link_id": len(links),
        "nodes": list(nodes.values()),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _link(source: dict[str, Any], slot: int, target: dict[str, Any], input_name: str, links: list[list[Any]]) -> None:
    position = next(i for i, socket in enumerate(target["inputs"]) if socket["name"] == input_name)
    number = len(links) + 1
    output = source["outputs"][slot]
    links.append([number, source["id"], slot, target["id"], position, output["type"]])
    output["links"].append(number)
    target["inputs"][position]["link"] = number


def main() -> int:
    """Rewrite every canvas graph."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from comfy_process import ComfyProcess

    with TemporaryDirectory() as base, ComfyProcess(Path(base)) as host:
        info = host.object_info()
    for path in sorted((WORKFLOWS / "api").glob("*.json")):
        api = json.loads(path.read_text(encoding="utf-8"))
        if lacking := sorted({entry["class_type"] for entry in api.values()} - info.keys()):
            print(f"{path.name} needs a newer host: this one has no {', '.join(lacking)}")
            continue
        graph = canvas_graph(api, info)
        text = json.dumps(graph, indent=1, ensure_ascii=False) + "\n"
        (WORKFLOWS / path.name).write_text(text, encoding="utf-8")
        print(WORKFLOWS / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
