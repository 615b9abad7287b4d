"""Values that no wire carries are one sentence, in every node."""

from __future__ import annotations

from typing import Any

import pytest
from host_inprocess import engine
from likeness_pack.nodes import NODE_CLASS_MAPPINGS
from likeness_pack.nodes.sockets import OURS, WrongSocket

# Nodes list files of the host's folders, which must be those of the tests from the first look on.
engine()


def inputs_of(node: Any) -> dict[str, Any]:
    """Inputs as the host asks for them."""
    return dict(node.INPUT_TYPES()["required"])


OBJECTS = [
    (name, socket)
    for name, node in NODE_CLASS_MAPPINGS.items()
    for socket, spec in inputs_of(node).items()
    if str(spec[0]).startswith(OURS)
]


def test_there_are_sockets() -> None:
    assert len(OBJECTS) > 20


@pytest.mark.parametrize(("name", "socket"), OBJECTS)
@pytest.mark.parametrize("value", [5, "faces", ["4", 0], {"a": 1}, 0.5, True])
def test_plain_values_are_refused(name: str, socket: str, value: Any) -> None:
    node = NODE_CLASS_MAPPINGS[name]
    given = {key: None for key in inputs_of(node)} | {socket: value}
    with pytest.raises(WrongSocket, match=rf"expected {OURS}[A-Z_]+ at {socket}, found {type(value).__name__}"):
        getattr(node(), node.FUNCTION)(**given)


def test_a_wire_that_is_missing_is_named() -> None:
    node = NODE_CLASS_MAPPINGS["LikenessDetectFaces"]
    with pytest.raises(WrongSocket, match="missing a required argument: 'images'"):
        node().detect(detector=None, score=0.5, on_missing_face="error")


@pytest.mark.parametrize(
    ("name", "socket", "kind"),
    [("LikenessDrawFaces", "variety", "FLOAT"), ("LikenessAvatarFaceMasks", "width", "INT")],
)
def test_a_text_on_a_wire_to_a_number_is_refused(name: str, socket: str, kind: str) -> None:
    node = NODE_CLASS_MAPPINGS[name]
    given = {key: None for key in inputs_of(node)} | {socket: "a report"}
    with pytest.raises(WrongSocket, match=f"expected {kind} at {socket}, found str"):
        getattr(node(), node.FUNCTION)(**given)
