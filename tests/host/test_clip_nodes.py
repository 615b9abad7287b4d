"""Clips through the nodes in the host's process and in its server: files, VIDEO where there is one, cancel, counts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from clip_files import QUARTER, frame_times, packets, write_raw_clip
from clip_people import GREEN, RED, ColourDetector, ColourEncoder, Places, frame_of
from host_inprocess import engine
from host_process import HostFailed
from identities import arcface_identity
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.faces.errors import NoFaceFound
from likeness_pack.inject.clips import NONE, MissingClip, has_video
from likeness_pack.inject.host import folder_paths, model_management
from likeness_pack.inject.loaded_networks import LoadedDetector, LoadedEncoder
from likeness_pack.inject.loaded_swapper import LoadedSwapper
from likeness_pack.media.audio import read_audio
from likeness_pack.media.errors import ClipNotWritten
from likeness_pack.media.facts import read_facts
from likeness_pack.media.read import read_frames
from likeness_pack.nodes.clips import LikenessLoadClip, LikenessSaveClip, LikenessSwapClip
from swap_standins import StandIn, write_onnx_recogniser, write_onnx_swapper
from torch import Tensor
from workflow_files import api_workflow

FRAMES = 20
# Uneven steps; the clip lies on its side and is turned by its display matrix.
STAMPS = [512 * n + 200 * (n % 3 == 1) for n in range(FRAMES)]
LOST = {3, 4, 15}


def places(number: int) -> Places:
    return {} if number in LOST else {RED: (30.0 + 4 * number, 70.0, 1.0), GREEN: (120.0 - 4 * number, 24.0, 1.0)}


@pytest.fixture(scope="module")
def clip() -> Iterator[str]:
    """A clip of the input folder: uneven stamps, sideways, with sound."""
    engine()
    folder = Path(folder_paths().get_input_directory()) / "sub 剪"
    folder.mkdir(parents=True, exist_ok=True)
    seen = torch.stack([frame_of(places(number)) for number in range(FRAMES)])
    # A player turns the stored frames back by the matrix.
    stored = seen.flip(2).transpose(1, 2).contiguous()
    write_raw_clip(folder / "walk.mp4", stored, STAMPS, matrix=QUARTER, sound=16000)
    yield "sub 剪/walk.mp4"
    (folder / "walk.mp4").unlink()


def file_of(clip: str) -> Path:
    return Path(folder_paths().get_annotated_filepath(clip))


def written(name: str) -> Path:
    return Path(folder_paths().get_output_directory()) / name


def frames_of(path: Path) -> Tensor:
    return torch.cat([part.frames for part in read_frames(path)])


def defaults(node: type, **given: Any) -> dict[str, Any]:
    schema = node.INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    found = {name: spec[1]["default"] for name, spec in schema.items() if "default" in spec[1]}
    choices = {name: spec[0][0] for name, spec in schema.items() if isinstance(spec[0], list) and name not in found}
    return choices | found | given


def swap(clip: str, **given: Any) -> tuple[Any, ...]:
    inputs = {
        "clip": clip,
        "detector": LoadedDetector(ColourDetector()),
        "swapper": LoadedSwapper(StandIn(32, lambda crops, _: 1 - crops)),
        "identity": arcface_identity(),
        "shrink": 2,
        "feather": 2,
        "fill": False,
        "chunk": 6,
    }
    return tuple(LikenessSwapClip().swap(**defaults(LikenessSwapClip, **(inputs | given)))["result"])


@pytest.mark.parametrize("policy", ["keep", "skip", "error"])
def test_file_to_file_under_each_policy(clip: str, policy: str) -> None:
    source, before = file_of(clip), len(list(written("likeness").glob("*"))) if written("likeness").is_dir() else 0
    if policy == "error":
        with pytest.raises(NoFaceFound, match="3, 4, 15"):
            swap(clip, on_missing_face=policy)
        assert len(list(written("likeness").glob("*")) if written("likeness").is_dir() else []) == before
        return
    video, name, tracks, count, report = swap(clip, on_missing_face=policy)
    path = written(name)
    assert path.is_file() and path.suffix == ".mp4" and count == FRAMES == len(tracks)
    assert frame_times(path) == frame_times(source) and packets(path, "audio") == packets(source, "audio")
    assert read_facts(path).orientation.matrix == QUARTER and (read_facts(path).height, read_facts(path).width) == (
        96,
        160,
    )
    assert ("unchanged: 3-4, 15" in report) == (policy == "keep") and f"{FRAMES} frames written" in report
    loud = (frames_of(path) - frames_of(source)).abs().amax(-1) > 0.2
    assert {number for number, one in enumerate(loud) if not bool(one.any())} == LOST
    assert video.get_dimensions()[0] > 0 if has_video() else Path(video) == path


def test_the_person_like_a_reference_is_swapped(clip: str) -> None:
    green = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[[GREEN]]})
    _, name, tracks, _, _ = swap(clip, reference=green, encoder=LoadedEncoder(ColourEncoder()))
    assert set(tracks.counts) == {0, 1}
    loud = (frames_of(written(name)) - frames_of(file_of(clip))).abs().amax(-1) > 0.2
    assert bool(loud[0, 24, 120]) and not bool(loud[:, 46:].any())


def test_cancel_stops_and_leaves_no_file(clip: str) -> None:
    calls: list[int] = []

    def cancelled(crops: Tensor, _: Tensor) -> Tensor:
        calls.append(len(crops))
        model_management().interrupt_current_processing(True)
        return crops

    folder = written("cancelled")
    # Both hosts raise their own class, which is no error of a node.
    with pytest.raises(BaseException, match=r"^$") as raised:
        swap(clip, swapper=LoadedSwapper(StandIn(32, cancelled)), filename_prefix="cancelled/x")
    assert raised.typename == "InterruptProcessingException" and len(calls) == 1
    assert not list(folder.iterdir())


def test_a_clip_as_pictures_and_back(clip: str) -> None:
    images, audio, fps, count, report = LikenessLoadClip().load(clip, 0, 0)
    assert images.shape == (FRAMES, 96, 160, 3) and count == FRAMES and 20 < fps < 30
    assert audio["waveform"].shape[:2] == (1, 2) and audio["sample_rate"] == 16000 and "turned" in report
    done = LikenessSaveClip().save(**defaults(LikenessSaveClip, images=images, like=clip))["result"]
    path = written(done[1])
    assert frame_times(path) == frame_times(file_of(clip)) and packets(path, "audio") == packets(file_of(clip), "audio")
    assert read_facts(path).orientation.matrix == QUARTER
    assert float((frames_of(path) - images).abs().mean()) * 255 < 2
    with pytest.raises(ClipNotWritten, match="at most 20 pictures"):
        LikenessSaveClip().save(**defaults(LikenessSaveClip, images=images.repeat(2, 1, 1, 1), like=clip))


def test_a_part_of_a_clip_starts_at_nought_with_its_own_sound(clip: str) -> None:
    images, audio, _, count, _ = LikenessLoadClip().load(clip, 5, 8)
    assert count == 8 and torch.equal(images, frames_of(file_of(clip))[5:13])
    seconds = float((STAMPS[12] - STAMPS[5]) * Fraction(1, 12800))
    assert abs(audio["waveform"].shape[-1] / 16000 - seconds) < 0.06
    done = LikenessSaveClip().save(**defaults(LikenessSaveClip, images=images, like=clip, first=5))["result"]
    base = STAMPS[5]
    assert frame_times(written(done[1])) == [(stamp - base) * Fraction(1, 12800) for stamp in STAMPS[5:13]]
    assert abs(read_audio(written(done[1])).seconds - seconds) < 0.15


def test_new_pictures_and_sound_become_a_clip() -> None:
    images = torch.stack([frame_of({RED: (40.0, 40.0, 1)}) for _ in range(12)]).float() / 255
    sound = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 16000}
    given = {
        "fps": 29.97,
        "audio": sound,
        "prompt": {"1": {"class_type": "X"}},
        "extra_pnginfo": {"workflow": {"a": "剪"}},
    }
    done = LikenessSaveClip().save(**defaults(LikenessSaveClip, images=images, **given))["result"]
    path = written(done[1])
    assert frame_times(path) == [Fraction(1001 * n, 30000) for n in range(12)] and len(packets(path, "audio")) > 5
    metadata = read_facts(path).metadata
    assert json.loads(metadata["prompt"]) == given["prompt"] and json.loads(metadata["workflow"]) == {"a": "剪"}
    nameless = LikenessSaveClip().save(**defaults(LikenessSaveClip, images=images, filename_prefix=" "))["result"][1]
    assert nameless.startswith("likeness_")
    alpha = torch.cat([images, torch.ones(12, 96, 160, 1)], -1)
    assert LikenessSaveClip().save(**defaults(LikenessSaveClip, images=alpha))["result"][1].endswith(".mp4")


def test_clips_are_listed_and_names_outside_are_refused(clip: str) -> None:
    names = LikenessSwapClip.INPUT_TYPES()["required"]["clip"][0]
    assert names[-1] == NONE and LikenessSaveClip.INPUT_TYPES()["required"]["like"][0][0] == NONE
    assert LikenessSwapClip.VALIDATE_INPUTS(clip) is True and LikenessLoadClip.VALIDATE_INPUTS(NONE) is True
    assert "no clip" in str(LikenessSwapClip.VALIDATE_INPUTS("absent.mp4"))
    assert "no clip" in str(LikenessSwapClip.VALIDATE_INPUTS("../../secret.mp4"))
    assert LikenessSwapClip.IS_CHANGED(clip) != LikenessSwapClip.IS_CHANGED(NONE)
    with pytest.raises(MissingClip, match="or a connected VIDEO"):
        swap(NONE)


def test_a_video_of_the_host_is_taken_and_given(clip: str) -> None:
    if not has_video():
        assert LikenessSwapClip.RETURN_TYPES[0] == "VIDEO" and isinstance(swap(clip)[0], str)
        return
    from comfy_api.input_impl import VideoFromComponents, VideoFromFile
    from comfy_api.util import VideoComponents

    source = file_of(clip)
    for video in (VideoFromFile(str(source)), VideoFromFile(io.BytesIO(source.read_bytes()))):
        given, name, _, count, _ = swap(NONE, video=video)
        assert count == FRAMES and packets(written(name), "audio") == packets(source, "audio")
        assert isinstance(given, VideoFromFile) and given.get_stream_source() == str(written(name))
    images = torch.stack([frame_of(places(number)) for number in range(6)]).float() / 255
    made = VideoFromComponents(VideoComponents(images=images, audio=None, frame_rate=Fraction(25)))
    assert swap(NONE, video=made)[3] == 6
    assert not list(Path(folder_paths().get_temp_directory()).glob("*/video.mp4"))


def person_clip(path: Path) -> None:
    """Real faces that move: the astronaut and one of the group, from the packages that bring the photos."""
    from sample_faces import _pixels

    woman = _pixels("skimage", "data", "astronaut.png")
    group = _pixels("insightface", "data", "images", "t1.jpg")
    frames = [
        torch.cat([woman[10:250, 100 - 6 * n : 340 - 6 * n], group[60:300, 80 + 4 * n : 320 + 4 * n]], 1)
        for n in range(6)
    ]
    write_raw_clip(path, (torch.stack(frames) * 255).byte(), [512 * n for n in range(6)], sound=16000)


def test_the_workflow_runs_in_a_server(server: Any) -> None:
    """Real photos, real detection, stand-ins of the published layouts, the graph through the host's own checks."""
    for package in ("onnx", "onnxruntime", "insightface"):
        pytest.importorskip(package)
    person_clip(server.base / "input" / "clip.mp4")
    models = server.base / "models"
    (models / "face_swappers").mkdir(parents=True, exist_ok=True)
    write_onnx_swapper(models / "face_swappers" / "inswapper_128.onnx", emap=torch.eye(512))
    write_onnx_recogniser(models / "insightface" / "models" / "buffalo_l" / "w600k_r50.onnx")
    prompt = api_workflow("swap_clip")
    (node,) = (number for number, one in prompt.items() if one["class_type"] == "LikenessSwapClip")
    told = "\n".join(server.history(prompt)["outputs"][node]["text"])
    name = told.splitlines()[0]
    path = server.base / "output" / name
    assert "6 faces swapped in 6 of 6 frames, 6 frames written" in told and "inswapper 128" in told
    assert frame_times(path) == frame_times(server.base / "input" / "clip.mp4")
    assert packets(path, "audio") == packets(server.base / "input" / "clip.mp4", "audio")
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"])[node]["class_type"] == "LikenessSwapClip"


def test_a_clip_of_a_sub_folder_is_read_again_when_it_was_replaced(server: Any) -> None:
    """The host asks the nodes of clips whether a name is good and whether its file changed."""
    path = server.base / "input" / "sub 剪" / "again.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    prompt = {
        "1": {"class_type": "LikenessLoadClip", "inputs": {"clip": "sub 剪/again.mp4", "first": 0, "count": 0}},
        "2": {"class_type": "LikenessSaveClip", "inputs": defaults(LikenessSaveClip, images=["1", 0])},
    }
    with pytest.raises(HostFailed, match="there is no clip sub"):
        server.run(prompt)
    for count in (3, 3, 5):
        write_raw_clip(path, torch.zeros(count, 96, 160, 3, dtype=torch.uint8), [512 * n for n in range(count)])
        assert f"{count} frames written" in server.history(prompt)["outputs"]["2"]["text"][0]
