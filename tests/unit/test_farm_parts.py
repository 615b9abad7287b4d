"""The farm without Ray: titles, names by content, JSONL files, records, and who gets which item."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from likeness_pack.tools.queueing.cluster import check_answers, is_this_machine
from likeness_pack.tools.queueing.errors import NoServer, WrongUsage
from likeness_pack.tools.queueing.events import masked_frame, split_frame
from likeness_pack.tools.queueing.items import Item, Unusable, content_key, finished, read_items, write_outputs
from likeness_pack.tools.queueing.owner import HostChoice, Owner
from likeness_pack.tools.queueing.shift import Shift
from likeness_pack.tools.queueing.titles import (
    Setting,
    content_name,
    find_node,
    load_workflow,
    parse_setting,
    prepare,
)

WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "Degrade",
        "inputs": {"images": ["1", 0], "seed": 1, "blur": 0.5, "each": True},
        "_meta": {"title": "Degrade v1.0"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, content in (("b.png", b"second"), ("a.JPG", b"first"), ("notes.txt", b"no picture")):
        (folder / name).write_bytes(content)
    return folder


def test_a_setting_is_split_at_the_last_dot_before_the_first_equals_sign() -> None:
    assert parse_setting("Degrade v1.0.seed=7") == Setting("Degrade v1.0", "seed", "7")
    assert parse_setting("3.filename_prefix=a=b.c") == Setting("3", "filename_prefix", "a=b.c")


@pytest.mark.parametrize("text", ["seed=1", "Photo.image", ".image=1", "Photo.=1", ""])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match=r"is not of the form Title\.input=value\.$"):
        parse_setting(text)


def test_nodes_are_found_by_title_class_or_number() -> None:
    assert [find_node(WORKFLOW, name) for name in ("Degrade v1.0", "SaveImage", "2")] == ["2", "3", "2"]
    with pytest.raises(WrongUsage, match="no node 'Foto': it has 'Photo'"):
        find_node(WORKFLOW, "Foto")


def test_a_title_that_two_nodes_have_needs_a_number() -> None:
    twice = {**WORKFLOW, "9": WORKFLOW["1"]}
    with pytest.raises(WrongUsage, match="'Photo' is the title of nodes 1, 9: give a node's number instead"):
        find_node(twice, "Photo")
    assert find_node(twice, "9") == "9"


def test_values_take_the_kind_of_what_stands_there() -> None:
    texts = ["2.seed=12", "2.blur=2", "2.each=false", "3.filename_prefix=12", "2.images=4"]
    made = prepare(WORKFLOW, [parse_setting(text) for text in texts]).workflow
    assert made["2"]["inputs"] == {"images": 4, "seed": 12, "blur": 2, "each": False}
    assert made["3"]["inputs"]["filename_prefix"] == "12"
    assert WORKFLOW["2"]["inputs"]["seed"] == 1, "the workflow given stays as it is"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2.seed=many", "2.seed takes a number, not 'many'."),
        ("2.blur=NaN", "2.blur takes a number, not 'NaN'."),
        ("2.seed=true", "2.seed takes a number, not 'true'."),
        ("2.each=1", "2.each takes true or false, not '1'."),
        ("Photo.picture=x", "node 'Photo' has no input 'picture': it has image."),
        ("Photo.image=@no such file.png", "no such file.png cannot be read: No such file or directory."),
    ],
)
def test_values_that_do_not_fit_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        prepare(WORKFLOW, [parse_setting(text)])
    assert str(refused.value) == sentence


def test_a_local_file_gets_a_name_of_its_content(photos: Path) -> None:
    (photos / "copy.png").write_bytes(b"second")
    made = prepare(WORKFLOW, [Setting("Photo", "image", "@b.png")], photos)
    name = made.workflow["1"]["inputs"]["image"]
    assert made.files == {name: photos / "b.png"}
    assert name == content_name(photos / "copy.png") != content_name(photos / "a.JPG")
    assert name.startswith("likeness-")
    assert name.endswith(".png")


def test_two_at_signs_begin_a_text() -> None:
    made = prepare(WORKFLOW, [parse_setting("3.filename_prefix=@@home")])
    assert made.workflow["3"]["inputs"]["filename_prefix"] == "@home"
    assert not made.files


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"nodes": [], "links": []}', "is a graph of the canvas: take one from workflows/api"),
        ("[1, 2]", "is no workflow in API form"),
        ('{"1": {"inputs": {}}}', "is no workflow in API form"),
        ("{", "is no JSON"),
    ],
)
def test_files_that_are_no_workflow_are_refused(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "w.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(WrongUsage, match=sentence):
        load_workflow(file)
    with pytest.raises(WrongUsage, match="cannot be read"):
        load_workflow(tmp_path / "missing.json")


def test_the_key_follows_content_and_nothing_else(photos: Path) -> None:
    def key(value: str, folder: Path) -> str:
        return content_key(prepare(WORKFLOW, [Setting("Photo", "image", value)], folder).workflow)

    first = key("@b.png", photos)
    (photos / "renamed.png").write_bytes(b"second")
    assert key("@renamed.png", photos) == first
    untitled = {node: {**entry, "_meta": {}} for node, entry in WORKFLOW.items()}
    assert content_key(untitled) == content_key(WORKFLOW)
    (photos / "b.png").write_bytes(b"another")
    assert key("@b.png", photos) != first
    changed = prepare(WORKFLOW, [Setting("2", "seed", 2)]).workflow
    assert content_key(changed) != content_key(WORKFLOW)


def test_a_folder_gives_its_pictures_in_order(photos: Path) -> None:
    items = read_items(photos, WORKFLOW, [parse_setting("2.seed=5")], "Photo.image")
    assert [item.name for item in items] == ["a.JPG", "b.png"]
    for item in items:
        assert isinstance(item, Item)
        assert item.workflow["2"]["inputs"]["seed"] == 5
        assert list(item.files.values()) == [photos / item.name]


def test_a_folder_needs_its_input_and_something_to_do(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="a folder needs --input"):
        read_items(photos, WORKFLOW, [])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WrongUsage, match="holds nothing to do"):
        read_items(empty, WORKFLOW, [], "Photo.image")
    with pytest.raises(WrongUsage, match="neither a folder nor a JSONL file"):
        read_items(tmp_path / "nowhere", WORKFLOW, [], "Photo.image")


def test_each_bad_line_has_its_own_sentence(photos: Path) -> None:
    lines = [
        '{"name": "good", "set": {"Photo.image": "@b.png", "2.seed": 3, "2.each": false}}',
        "",
        "{broken",
        '{"name": "list", "set": [1]}',
        '{"name": "gone", "set": {"Photo.image": "@gone.png"}}',
        '{"name": "null", "set": {"2.seed": null}}',
        '{"set": {"Foto.image": "x"}}',
        '{"sets": {}}',
    ]
    file = photos / "items.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    good, *bad = read_items(file, WORKFLOW, [])
    assert isinstance(good, Item)
    assert good.workflow["2"]["inputs"] == {"images": ["1", 0], "seed": 3, "blur": 0.5, "each": False}
    assert [item.name for item in bad] == ["line 3", "line 4", "gone", "null", "line 7", "line 8"]
    said = [item.error if isinstance(item, Unusable) else "" for item in bad]
    expected = ["no JSON", "not of the form", "cannot be read", "not null", "no node 'Foto'", "not of the form"]
    assert [word in text for word, text in zip(expected, said, strict=True)] == [True] * 6


def test_a_record_counts_only_with_all_its_files(photos: Path, tmp_path: Path) -> None:
    item = read_items(photos, WORKFLOW, [], "Photo.image")[0]
    assert isinstance(item, Item)
    outputs = [
        {"node": "3", "title": "Save, and ../../show", "suffix": ".png", "content": bytes([place])} for place in (1, 2)
    ]
    assert finished(tmp_path, item.key) is None
    names = write_outputs(tmp_path, item, outputs, [{"text": "seen"}])
    assert names == [f"{item.key}-{place}-save_and_show.png" for place in (0, 1)]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"\x01", b"\x02"]
    assert finished(tmp_path, item.key) == names
    (tmp_path / names[1]).write_bytes(b"")
    assert finished(tmp_path, item.key) is None
    write_outputs(tmp_path, item, outputs, [])
    (tmp_path / names[0]).unlink()
    assert finished(tmp_path, item.key) is None


class Bench:
    """Hands of a test: ``answer(hand, item)`` is what a hand makes of an item; the newest is ready first."""

    def __init__(self, count: int, answer: Any) -> None:
        self.all = list(range(count))
        self.given: list[tuple[int, str]] = []
        self._answer = answer

    def start(self, hand: int, item: Item) -> Any:
        self.given.append((hand, item.name))
        return (hand, item.name, len(self.given))

    def next(self, waiting: list[Any]) -> Any:
        return waiting[-1]

    def result(self, reference: Any) -> dict[str, Any]:
        return self._answer(reference[0], reference[1])


def done(hand: int, name: str) -> dict[str, Any]:
    output = {"node": "3", "title": "Save", "suffix": ".png", "content": name.encode()}
    return {"status": "done", "attempts": 1, "outputs": [output], "texts": []}


@pytest.fixture
def many(tmp_path: Path) -> list[Item | Unusable]:
    file = tmp_path / "items.jsonl"
    lines = [json.dumps({"name": f"n{seed}", "set": {"2.seed": seed}}) for seed in (1, 2, 3, 4, 2)]
    file.write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return read_items(file, WORKFLOW, [])


def test_equal_items_are_done_once_and_all_are_reported(many: list[Item | Unusable], tmp_path: Path) -> None:
    shift, bench = Shift(many, tmp_path / "out", quiet=True), Bench(2, done)
    assert shift.missing == 4
    shift.work(bench)
    report = shift.report("w.json")
    assert sorted(name for _, name in bench.given) == ["n1", "n2", "n3", "n4"]
    assert [entry["status"] for entry in report["items"]] == ["done"] * 5 + ["failed"]
    assert report["items"][1]["files"] == report["items"][4]["files"]
    assert (report["done"], report["failed"], report["items_in_all"]) == (5, 1, 6)


def test_a_rerun_does_only_what_is_missing(many: list[Item | Unusable], tmp_path: Path) -> None:
    out = tmp_path / "out"
    Shift(many, out, quiet=True).work(Bench(1, done))
    assert Shift(many, out).missing == 0
    lost = many[2]
    assert isinstance(lost, Item)
    next(out.glob(f"{lost.key}-*")).unlink()
    shift, bench = Shift(many, out, quiet=True), Bench(1, done)
    shift.work(bench)
    assert bench.given == [(0, "n3")]
    assert [entry["status"] for entry in shift.report("w.json")["items"]][:4] == ["kept", "kept", "done", "kept"]


def test_a_terminal_shows_a_bar_and_a_log_shows_lines(
    many: list[Item | Unusable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        Shift(many, tmp_path / type(stream).__name__).work(Bench(1, done))
        shown = stream.getvalue()
        steps = [line for line in re.split(r"[\r\n]", shown) if line.strip()]
        if stream.isatty():
            assert [line.split("]")[0].count("#") for line in steps] == [7, 15, 22, 30]
            assert all(f"] {number}/4 n" in line for number, line in enumerate(steps, 1))
            assert shown.endswith("\n") and shown.count("\n") == 1
        else:
            assert steps == [f"[{number}/4] {line.split()[1]} done" for number, line in enumerate(steps, 1)]


def test_a_hand_without_comfyui_passes_its_item_on(many: list[Item | Unusable], tmp_path: Path) -> None:
    def answer(hand: int, name: str) -> dict[str, Any]:
        return {"status": "no host", "error": "ComfyUI does not start: no disk"} if hand == 0 else done(hand, name)

    shift, bench = Shift(many, tmp_path / "out", quiet=True), Bench(2, answer)
    shift.work(bench)
    assert shift.report("w.json")["done"] == 5
    assert [hand for hand, _ in bench.given].count(0) == 1
    with pytest.raises(NoServer, match="ComfyUI does not start: no disk"):
        Shift(many, tmp_path / "other", quiet=True).work(Bench(1, answer))


def test_an_item_that_fails_leaves_the_others_alone(many: list[Item | Unusable], tmp_path: Path) -> None:
    def answer(hand: int, name: str) -> dict[str, Any]:
        return {"status": "failed", "error": "node 1: no picture", "attempts": 1} if name == "n3" else done(hand, name)

    shift = Shift(many, tmp_path / "out", quiet=True)
    shift.work(Bench(2, answer))
    failed = [entry for entry in shift.report("w.json")["items"] if entry["status"] == "failed"]
    assert [(entry["name"], entry["files"]) for entry in failed] == [("n3", []), ("line 6", [])]
    assert failed[0]["error"] == "node 1: no picture"
    assert Shift(many, tmp_path / "out").missing == 1


@pytest.mark.parametrize("address", ["10.0.0.5", "10.0.0.5:", ":6379", "head:port", "ray://head:10001", "head:70000"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(WrongUsage, match=r"--address takes HOST:PORT of a Ray cluster"):
        check_answers(address)


def test_an_address_where_nothing_answers_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"localhost:{listening.getsockname()[1]}"
        check_answers(address)
    with pytest.raises(NoServer, match=rf"no Ray cluster answers at {address} \(.*\): start one with ray start --head"):
        check_answers(address)


def test_this_machine_is_known_by_its_loopback_names() -> None:
    named = {"127.0.0.1:1": True, "localhost:1": True, "[::1]:1": True, "10.0.0.5:1": False, "head:1": False}
    assert {address: is_this_machine(address) for address in named} == named


def test_an_owner_takes_its_folder_away(tmp_path: Path) -> None:
    base = tmp_path / "farm" / "actor-0"
    (base / "output").mkdir(parents=True)
    (tmp_path / "farm" / "of another").mkdir()
    Owner(base, HostChoice()).clear()
    assert [path.name for path in (tmp_path / "farm").iterdir()] == ["of another"]


@pytest.mark.parametrize("size", [0, 5, 125, 126, 70000])
def test_frames_are_cut_where_they_end(size: int) -> None:
    payload = bytes(size)
    if size < 126:
        header = bytes([0x81, size])
    elif size < 65536:
        header = bytes([0x81, 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([0x81, 127]) + size.to_bytes(8, "big")
    frame = header + payload
    assert split_frame(frame + b"next") == (1, True, payload, b"next")
    assert all(split_frame(frame[:cut]) is None for cut in range(0, len(frame), max(1, len(frame) // 20)))


def test_an_answer_to_a_ping_is_masked() -> None:
    frame = masked_frame(10, b"hello")
    assert frame[:2] == bytes([0x8A, 0x85])
    assert bytes(byte ^ frame[2 + place % 4] for place, byte in enumerate(frame[6:])) == b"hello"
