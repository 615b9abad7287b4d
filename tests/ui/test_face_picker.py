"""The face picker on 'Select Faces': clicks write the text input, typed text shows on the picture, keys work too."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

SELECT = 3
# Each run has another limit (which says nothing without a reference): a server does not tell again what it has cached.
RUNS = itertools.count(1)
INDEX = """(id) => app.graph.getNodeById(id).widgets.find((w) => w.name === "index").value"""
TYPE = """([id, name, text]) => {
    const widget = app.graph.getNodeById(id).widgets.find((w) => w.name === name);
    widget.value = text;
    widget.callback?.(text);
    app.canvas.setDirty(true, true);
}"""


def group(index: str, limit: float) -> dict[str, Any]:
    """Detect the faces of the group picture and select some of them, in API form."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "t1.jpg"}},
        "2": {"class_type": "LikenessLoadDetector", "inputs": {"detector": "mtcnn"}},
        "4": {
            "class_type": "LikenessDetectFaces",
            "inputs": {"images": ["1", 0], "detector": ["2", 0], "score": 0.0, "on_missing_face": "error"},
        },
        str(SELECT): {
            "class_type": "LikenessSelectFaces",
            "inputs": {"images": ["4", 1], "faces": ["4", 0], "order": "left-right", "index": index, "limit": limit},
        },
    }


def value(tab: Any) -> str:
    return str(tab.ask(INDEX, SELECT))


@pytest.fixture
def picker(running_tab: Any) -> Any:
    """The picker after one run, in the middle of the page."""
    tab = running_tab
    tab.ask("async (prompt) => { await app.loadApiJson(prompt, 'group'); }", group("0", next(RUNS) / 100))
    assert value(tab) == "0"
    assert "Run once" in tab.page.locator(".likeness-picker .likeness-status").first.inner_text()
    tab.queue()
    tab.until("(id) => app.graph.getNodeById(id).likenessPicker?.entries.length", SELECT)
    tab.show(SELECT)
    box = tab.page.locator(".likeness-picker")
    box.locator("img").wait_for(state="visible")
    tab.until("() => document.querySelector('.likeness-picker img').naturalWidth > 0")
    return box


def test_clicks_change_the_text(running_tab: Any, picker: Any) -> None:
    faces = picker.locator(".likeness-face")
    assert faces.count() == 6
    assert faces.nth(0).get_attribute("aria-pressed") == "true"
    faces.nth(2).click()
    assert value(running_tab) == "0,2"
    assert faces.nth(2).get_attribute("aria-pressed") == "true"
    faces.nth(0).click()
    assert value(running_tab) == "2"
    # An empty text means all, so the last one stays.
    faces.nth(2).click()
    assert value(running_tab) == "2"
    assert "stays chosen" in picker.locator(".likeness-status").inner_text()
    picker.get_by_role("button", name="Keep all faces").click()
    assert value(running_tab) == ""
    assert picker.locator(".likeness-face[aria-pressed=true]").count() == 6
    faces.nth(4).click()
    assert value(running_tab) == "0,1,2,3,5"
    assert running_tab.prompt()[str(SELECT)]["inputs"]["index"] == "0,1,2,3,5"


def test_boxes_lie_where_the_faces_are(running_tab: Any, picker: Any) -> None:
    image = picker.locator("img").bounding_box()
    entry = running_tab.ask("(id) => app.graph.getNodeById(id).likenessPicker.entry", SELECT)
    assert entry["size"][0] / entry["size"][1] == pytest.approx(image["width"] / image["height"], rel=0.03)
    for number, face in enumerate(entry["faces"]):
        shown = picker.locator(".likeness-face").nth(number).bounding_box()
        x1, y1, x2, y2 = face["box"]
        assert shown["x"] - image["x"] == pytest.approx(x1 * image["width"], abs=2)
        assert shown["y"] - image["y"] == pytest.approx(y1 * image["height"], abs=2)
        assert shown["width"] == pytest.approx((x2 - x1) * image["width"], abs=2)
        assert shown["height"] == pytest.approx((y2 - y1) * image["height"], abs=2)
    lefts = [face["box"][0] for face in entry["faces"]]
    assert lefts == sorted(lefts)


def test_typed_text_shows_on_the_picture(running_tab: Any, picker: Any) -> None:
    pressed = picker.locator(".likeness-face[aria-pressed=true]")
    running_tab.ask(TYPE, [SELECT, "index", "1-3"])
    running_tab.until("() => document.querySelectorAll('.likeness-face[aria-pressed=true]').length === 3")
    assert [item.get_attribute("data-number") for item in pressed.all()] == ["1", "2", "3"]
    for text, words in (("9", "no face 9"), ("one", "Write numbers")):
        running_tab.ask(TYPE, [SELECT, "index", text])
        running_tab.until(
            "(words) => document.querySelector('.likeness-picker .likeness-status').textContent.includes(words)", words
        )
        assert pressed.count() == 0
    running_tab.ask(TYPE, [SELECT, "index", "0"])
    running_tab.ask(TYPE, [SELECT, "order", "largest"])
    running_tab.until("() => document.querySelector('.likeness-picker .likeness-status').textContent.includes('again')")


def test_the_keyboard_chooses_too(running_tab: Any, picker: Any) -> None:
    picker.locator(".likeness-face").nth(1).focus()
    running_tab.page.keyboard.press("Space")
    assert value(running_tab) == "0,1"
    running_tab.page.keyboard.press("Delete")
    assert running_tab.ask("() => app.graph._nodes.length") == 4
    running_tab.page.keyboard.press("Tab")
    running_tab.page.keyboard.press("Enter")
    assert value(running_tab) == "0,1,2"


def test_the_choice_is_saved_and_the_picker_is_not(running_tab: Any, picker: Any) -> None:
    picker.locator(".likeness-face").nth(3).click()
    saved = running_tab.saved()
    (node,) = (node for node in saved["nodes"] if node["id"] == SELECT)
    assert node["widgets_values"][:2] == ["left-right", "0,3"]
    assert len(node["widgets_values"]) == 3
    running_tab.load(saved)
    assert value(running_tab) == "0,3"
    sent = running_tab.prompt()[str(SELECT)]["inputs"]
    assert set(sent) == {"images", "faces", "order", "index", "limit"}
    assert sent["index"] == "0,3"


def test_no_other_node_has_a_widget_of_ours(running_tab: Any, picker: Any) -> None:
    script = """() => app.graph._nodes.filter((node) => !node.type.startsWith("Likeness"))
        .flatMap((node) => node.widgets ?? []).filter((widget) => widget.type === "likeness").length"""
    assert running_tab.ask(script) == 0
    before = len(running_tab.complaints)
    picker.locator(".likeness-face").nth(1).click()
    assert value(running_tab) == "0,1"
    assert running_tab.complaints[before:] == []
