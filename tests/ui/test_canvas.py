"""The pack on the canvas of each interface: it loads, every shipped graph opens, and a run shows what it found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from host_process import PACK_FOLDER, ComfyProcess
from likeness_pack.adapters.model_table import published_files
from pack import ROOT

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
INTERFACES = ["the host's own", "1.27.10", "1.58.1"]
SCRIPTS = sorted(path.name for path in (ROOT / "web").glob("*.js"))


def graph(name: str) -> dict[str, Any]:
    return dict(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))


def node_of(name: str, title: str) -> int:
    (found,) = (node["id"] for node in graph(name)["nodes"] if node["title"] == title)
    return int(found)


def test_the_pack_loads_without_a_complaint(tab: Any) -> None:
    assert tab.complaints == []
    for script in SCRIPTS:
        assert [url for url in tab.loaded if url.split("?")[0].endswith(f"{PACK_FOLDER}/{script}")], script
    known = tab.ask("() => app.extensions.map((extension) => extension.name).filter((n) => n.startsWith('Likeness.'))")
    assert sorted(known) == ["Likeness.FacePicker", "Likeness.ModelFiles", "Likeness.Report"]


def test_every_shipped_graph_opens(tab: Any, host: ComfyProcess) -> None:
    nodes = set(host.object_info())
    for name in NAMES:
        before = len(tab.complaints)
        shipped = graph(name)
        tab.load(shipped)
        assert tab.ask("() => app.graph._nodes.length") == len(shipped["nodes"]), name
        newer = {node["type"] for node in shipped["nodes"]} - nodes
        # The package host is older than some nodes of ComfyUI itself; ours are all there.
        assert not {kind for kind in newer if kind.startswith("Likeness")}, name
        assert tab.unknown_types() == sorted(newer), name
        # The newest interface asks for more than the package host can answer; what is not there is no fault of a graph.
        unanswered = [text for text in tab.complaints if tab.version == "1.58.1" and "404" in text]
        assert newer or not [text for text in tab.complaints[before:] if text not in unanswered], name
    # What the host says of its own missing nodes would cover the canvas of the next test.
    tab.reload()


@pytest.mark.parametrize("name", ["identity_check", "two_people_regions", "restore_group_photo"])
def test_an_opened_graph_is_the_shipped_workflow(tab: Any, name: str) -> None:
    tab.load(graph(name))
    shipped = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    found = tab.prompt()
    assert {number: entry["class_type"] for number, entry in found.items()} == {
        number: entry["class_type"] for number, entry in shipped.items()
    }
    for number, entry in shipped.items():
        # The interface adds the button of LoadImage, and inputs that are newer than the file.
        assert found[number]["inputs"].items() >= entry["inputs"].items(), number


def test_identity_check_shows_its_overlay_and_its_reports(running_tab: Any) -> None:
    tab, name = running_tab, "identity_check"
    tab.load(graph(name))
    overlay, found, verdict = (
        node_of(name, title) for title in ("Overlay of the group", "Faces of the group", "Who is it?")
    )
    # Another score for each interface, since a server does not tell again what it finds in its cache.
    score = 0.9 + INTERFACES.index(tab.version) / 100
    tab.ask("([id, value]) => { app.graph.getNodeById(id).widgets[0].value = value; }", [found, score])
    before = tab.saved()
    tab.queue()
    tab.until("(id) => app.nodeOutputs[id]?.images?.length", overlay)
    tab.show(overlay)
    # The interface loads the picture of a node when it draws it.
    tab.until("(id) => app.graph.getNodeById(id).imgs?.[0]?.naturalWidth > 0", overlay)
    assert "identity_check_group" in tab.ask("(id) => app.graph.getNodeById(id).imgs[0].src", overlay)
    tab.until("(id) => app.graph.getNodeById(id).widgets?.some((w) => w.name === 'likeness_report')", verdict)
    assert tab.report(found).splitlines()[0].startswith("6 faces in 1 images")
    assert "same" in tab.report(verdict)
    tab.show(verdict)
    tab.page.locator("pre.likeness-report", has_text="same").first.wait_for(state="visible")
    # Only inputs are saved with a graph, never what a run showed.
    values, shown = (
        {n["id"]: n.get("widgets_values") or [] for n in graph["nodes"]} for graph in (before, tab.saved())
    )
    assert shown == values
    assert tab.report(overlay) is None


def test_the_panel_lists_the_model_files(tab: Any) -> None:
    page = tab.page
    if tab.version == "the host's own" and page.locator("#likeness-model-files").count():
        page.locator("#likeness-model-files").click()
    else:
        tab.ask("() => { app.extensionManager.command.execute('Likeness.ModelFiles'); }")
    panel = page.locator("dialog.likeness-panel")
    panel.locator("tbody tr").first.wait_for()
    panel.get_by_role("checkbox").uncheck()
    rows = panel.locator("tbody tr")
    assert rows.count() == len(published_files())
    panel.get_by_role("searchbox").fill("ip-adapter-faceid_sd15.bin")
    cells = rows.first.locator("td").all_inner_texts()
    assert cells[:4] == ["missing", "ip-adapter-faceid_sd15.bin", "models/face_adapters", "about 96.7 MB"]
    assert cells[4] and "huggingface" in cells[6]
    panel.get_by_role("button", name="Close").focus()
    page.keyboard.press("Escape")
    panel.wait_for(state="detached")
