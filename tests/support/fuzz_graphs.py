"""Random graphs, wired by type from the live schemas, and random damage to graphs in API form."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any

Prompt = dict[str, Any]

HOSTS_OWN = (
    "CheckpointLoaderSimple", "LoadImage", "EmptyLatentImage", "CLIPTextEncode", "KSampler", "VAEDecode", "VAEEncode",
    "EmptyImage", "SolidMask", "InvertMask", "ImageBatch", "ImageInvert", "MaskToImage", "ImageToMask",
)  # fmt: skip
# Sizes and steps of the host's nodes, so that a graph is about wires and not about waiting.
SMALL: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 1},
    "EmptyImage": {"width": 64, "height": 48, "batch_size": 1},
    "SolidMask": {"width": 64, "height": 64},
    "KSampler": {"steps": 1},
}
# They need no wire, run for thousands of steps and write into the models folder, as they should.
TRAINERS = frozenset({"LikenessTrainAdapter", "LikenessTrainEncoder"})
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")
ODD_TEXTS = (
    "", " ", "../../evil", "/etc/evil", "..\\..\\evil", "C:\\evil", "CON", "nul.png", "a\x00b", "~/evil", "x" * 3000,
    "..", ".", "脸\u202e", "%date:yyyy%", "{0}{name}", "a/b/../../../evil", "0", "-1", "all", "largest", "1,2,,x", "\n",
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**40, 1e308, float("nan"), "", "x" * 100_000, [], {}, [[]], ["1"], ["1", 0, 0], [1, 0],
    ["no such node", 0], ["1", 99], ["1", -1], ["1", "0"], {"a": 1}, "../../evil", "\x00", "Likeness", [None, None],
)  # fmt: skip


class Wiring:
    """Makes random graphs of nodes of this pack and a few of the host's.

    Args:
        info: the live schemas.
        hostile: how often a picture, mask or sound comes from a node that gives what no honest one gives.
    """

    def __init__(self, info: Mapping[str, Any], dice: random.Random, hostile: float = 0.25) -> None:
        self._info, self._dice, self._hostile = info, dice, hostile
        self.ours = sorted(name for name in info if name.startswith("Likeness") and name not in TRAINERS)
        self._makers: dict[str, list[tuple[str, int]]] = {}
        for name in (*self.ours, *(one for one in HOSTS_OWN if one in info)):
            for slot, kind in enumerate(info[name]["output"]):
                if isinstance(kind, str):
                    self._makers.setdefault(kind, []).append((name, slot))
        self._graph: Prompt = {}

    def graph(self, target: str, depth: int = 3) -> Prompt:
        """A graph around one node; each of its outputs has an end."""
        self._graph = {}
        number = self._node(target, depth)
        for slot in range(len(self._info[target]["output"])):
            self._add("FuzzEnd", {"value": [number, slot]})
        return self._graph

    def _add(self, kind: str, inputs: dict[str, Any]) -> str:
        number = str(len(self._graph) + 1)
        while number in self._graph:
            number = str(int(number) + 1)
        self._graph[number] = {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        return number

    def _node(self, kind: str, depth: int) -> str:
        schema, inputs = self._info[kind]["input"], dict[str, Any]()
        for name, spec in schema.get("required", {}).items():
            self._fill(inputs, name, spec, depth)
        for name, spec in schema.get("optional", {}).items():
            if self._dice.random() < 0.4:
                self._fill(inputs, name, spec, depth)
        inputs |= SMALL.get(kind, {})
        return self._add(kind, inputs)

    def _fill(self, inputs: dict[str, Any], name: str, spec: Any, depth: int) -> None:
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        if kind == "COMBO":
            kind = options.get("options", [])
        if isinstance(kind, list):
            inputs[name] = self._dice.choice(kind) if kind and self._dice.random() > 0.02 else "no such choice"
        elif kind in WIDGETS:
            inputs[name] = self._value(kind, options)
        else:
            link = self._link(kind, depth)
            if link is not None:
                inputs[name] = link

    def _value(self, kind: str, options: Mapping[str, Any]) -> Any:
        default, dice = options.get("default"), self._dice
        if kind == "STRING":
            return default if default is not None and dice.random() < 0.6 else dice.choice(ODD_TEXTS)
        if kind == "BOOLEAN":
            return dice.random() < 0.5
        if default is not None and dice.random() < 0.6:
            return default
        low = options.get("min", 0)
        high = min(options.get("max", 8), 2 * abs(default or 4) + 4)
        if dice.random() < 0.05:
            return dice.choice((low - 1, 10**12, "x", None))
        return dice.choice((low, high, dice.randint(int(low), max(int(low), int(high)))))

    def _link(self, kind: str, depth: int) -> list[Any] | None:
        dice = self._dice
        fuzz = {"IMAGE": "FuzzImage", "MASK": "FuzzMask", "AUDIO": "FuzzAudio"}.get(kind)
        if fuzz and dice.random() < (self._hostile if kind != "AUDIO" else 1.0):
            return [self._node(fuzz, 0), 0]
        if dice.random() < 0.03:
            kind = dice.choice(sorted(self._makers))
        known = [
            [number, slot] for number, node in self._graph.items() for slot in self._slots(node["class_type"], kind)
        ]
        if known and dice.random() < 0.6:
            return dice.choice(known)
        makers = self._makers.get(kind, [])
        if depth <= 0:
            makers = [maker for maker in makers if not self._needs_wires(maker[0])]
        if not makers:
            return dice.choice(known) if known else None
        name, slot = dice.choice(makers)
        return [self._node(name, depth - 1), slot]

    def _slots(self, name: str, kind: str) -> list[int]:
        return [slot for slot, made in enumerate(self._info[name]["output"]) if made == kind]

    def _needs_wires(self, name: str) -> bool:
        required = self._info[name]["input"].get("required", {}).values()
        return any(isinstance(spec[0], str) and spec[0] not in (*WIDGETS, "COMBO") for spec in required)


def odd_graph(prompt: Mapping[str, Any], dice: random.Random) -> Any:
    """A graph of which some part is no longer what it should be."""
    graph: Any = copy.deepcopy(dict(prompt))
    for _ in range(dice.choice((1, 1, 2, 4))):
        number = dice.choice(sorted(graph)) if graph else "1"
        node = graph.get(number)
        what = dice.randrange(8)
        if what == 0 or not isinstance(node, dict):
            graph[number] = odd_value(dice)
        elif what == 1:
            node["class_type"] = dice.choice(("LikenessNoSuchNode", "Likeness", odd_value(dice)))
        elif what == 2:
            node["inputs"] = odd_value(dice)
        elif what in (3, 4, 5) and isinstance(node.get("inputs"), dict) and node["inputs"]:
            node["inputs"][dice.choice(sorted(node["inputs"]))] = odd_value(dice)
        elif what == 6:
            node["_meta"] = odd_value(dice)
        elif node:
            node.pop(dice.choice(sorted(node)), None)
    return graph


def odd_value(dice: random.Random) -> Any:
    """Any JSON value, now and then a deep one."""
    if dice.random() < 0.05:
        value: Any = 1
        for _ in range(dice.choice((10, 50, 150))):
            value = [value] if dice.random() < 0.5 else {"a": value}
        return value
    return copy.deepcopy(dice.choice(_ODD_VALUES))


def host_survives(graph: Any) -> bool:
    """Whether the host's own queue takes a graph: some hosts trust that nodes and wires exist once it is queued."""
    if not isinstance(graph, dict):
        return True
    for node in graph.values():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            return False
        if not isinstance(node.get("class_type"), str):
            return False
        wires = [value for value in node["inputs"].values() if isinstance(value, list)]
        if not all(_is_wire(wire, graph) for wire in wires):
            return False
    return True


def _is_wire(wire: list[Any], graph: dict[str, Any]) -> bool:
    """Whether a list is a node of the graph and the number of an output."""
    return len(wire) == 2 and isinstance(wire[0], str) and wire[0] in graph and isinstance(wire[1], int)
