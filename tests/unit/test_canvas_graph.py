"""The tool that writes canvas forms, and the one that draws them."""

from __future__ import annotations

import json
import sys
from typing import Any

from pack import ROOT, register

register()
sys.path.append(str(ROOT / "tools" / "dev"))

import graph_picture  # noqa: E402
from canvas_graph import canvas_graph, column_of  # noqa: E402


def definition(name: str, outputs: list[str], required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "input": {"required": required, "optional": optional},
        "output": outputs,
        "output_name": outputs,
    }


INFO = {
    "LikenessNumber": definition("LikenessNumber", ["FLOAT"], {}, {"mask": ["MASK"]}),
    "Source": definition("Source", ["IMAGE"], {"file": [["a.png"], {"image_upload": True}]}, {"vae": ["VAE"]}),
    "Middle": definition("Middle", ["IMAGE"], {"images": ["IMAGE"], "seed": ["INT", {"default": 1}]}, {}),
    "End": definition("End", [], {"images": ["IMAGE"], "scale": ["FLOAT", {"default": 0.5}]}, {}),
}
API: dict[str, Any] = {
    "1": {"class_type": "Source", "inputs": {"file": "a.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "LikenessNumber", "inputs": {}},
    "3": {"class_type": "Middle", "inputs": {"images": ["1", 0], "seed": 7}},
    "4": {"class_type": "End", "inputs": {"images": ["3", 0], "scale": ["2", 0]}},
}


def node(graph: dict[str, Any], number: int) -> dict[str, Any]:
    return next(dict(entry) for entry in graph["nodes"] if entry["id"] == number)


def test_a_node_without_inputs_stands_before_the_first_that_takes_it() -> None:
    assert [column_of(API, name) for name in API] == [0, 1, 1, 2]


def test_a_link_into_a_widget_is_a_socket_that_keeps_the_widgets_default() -> None:
    graph = canvas_graph(API, INFO)
    end = node(graph, 4)
    assert end["inputs"][1] == {"name": "scale", "type": "FLOAT", "link": 3, "widget": {"name": "scale"}}
    assert end["widgets_values"] == [0.5]
    assert graph["links"][2] == [3, 2, 0, 4, 1, "FLOAT"]


def test_unlinked_optional_sockets_of_the_host_are_left_out_and_ours_are_kept() -> None:
    graph = canvas_graph(API, INFO)
    assert node(graph, 1)["inputs"] == []
    assert [socket["name"] for socket in node(graph, 2)["inputs"]] == ["mask"]


def test_values_that_the_interface_adds() -> None:
    graph = canvas_graph(API, INFO)
    assert node(graph, 1)["widgets_values"] == ["a.png", "image"]
    assert node(graph, 3)["widgets_values"] == [7, "fixed"]


def test_the_drawing_shows_boxes_and_links() -> None:
    graph = json.loads((ROOT / "workflows" / "fact_portrait.json").read_text(encoding="utf-8"))
    picture = graph_picture.Drawing(graph).picture()
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    wanted = {graph_picture.OURS, graph_picture.BOX, graph_picture.COLOURS["MODEL"]}
    assert {"#{:02x}{:02x}{:02x}".format(*colour) for colour in colours} >= wanted
    assert len(graph_picture.as_jpeg(picture)) <= graph_picture.LARGEST_BYTES
