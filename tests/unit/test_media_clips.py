"""Clips in files: stamps, orientation, colour and packets stay; damage is told; nothing is left behind."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from clip_files import MIRROR, QUARTER, drawn_frames, frame_times, packets, write_raw_clip
from likeness_pack.media import av_package
from likeness_pack.media.errors import BadClip, ClipNotWritten, ClipPackageMissing
from likeness_pack.media.facts import read_facts
from likeness_pack.media.layout import ending_for, layout_like, layout_of
from likeness_pack.media.orientation import as_seen, as_stored, orientation_of
from likeness_pack.media.read import read_frames
from likeness_pack.media.transform import transform_clip
from likeness_pack.media.write import ClipWriter, WriteOptions
from torch import Tensor

# Steps of 40, 20, 75 and 3 milliseconds in turn, from a start that is not 0.
UNEVEN = [1024 + n // 4 * 1766 + (0, 512, 768, 1728)[n % 4] for n in range(24)]
EVEN = [512 * n for n in range(24)]


def same(frames: Tensor, first: int) -> Tensor:
    return frames


def all_frames(path: Path, **settings: object) -> Tensor:
    return torch.cat([part.frames for part in read_frames(path, 7, **settings)])  # type: ignore[arg-type]


def test_chunks_are_bounded_and_start_anywhere(tmp_path: Path) -> None:
    path = write_raw_clip(tmp_path / "a clip 剪.mp4", drawn_frames(24), EVEN)
    parts = list(read_frames(path, 7))
    assert [len(part) for part in parts] == [7, 7, 7, 3] and [part.first for part in parts] == [0, 7, 14, 21]
    assert [stamp for part in parts for stamp in part.stamps] == EVEN and parts[0].durations == (512,) * 7
    frames = torch.cat([part.frames for part in parts])
    assert frames.dtype == torch.float32 and float((frames - drawn_frames(24) / 255).abs().mean()) * 255 < 2.5
    (middle,) = read_frames(path, 7, first=9, count=4)
    assert torch.equal(middle.frames, frames[9:13]) and middle.first == 9 and middle.stamps == tuple(EVEN[9:13])
    small = next(iter(read_frames(path, 2, dtype=torch.uint8)))
    assert small.frames.dtype == torch.uint8 and torch.equal(small.frames.float() / 255, frames[:2])


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_uneven_stamps_and_every_packet_of_sound_stay(tmp_path: Path, ending: str) -> None:
    base = Fraction(1, 1000) if ending == ".mkv" else Fraction(1, 12800)
    source = write_raw_clip(tmp_path / f"in{ending}", drawn_frames(24), UNEVEN, time_base=base, sound=44100)
    done = transform_clip(source, tmp_path / f"out{ending}", same, chunk=5)
    assert done.frames == 24 and done.path.is_file()
    assert frame_times(done.path) == frame_times(source) == [stamp * base for stamp in UNEVEN]
    assert packets(done.path, "audio") == packets(source, "audio")
    steps = [(later - earlier) * base for earlier, later in zip(UNEVEN, UNEVEN[1:], strict=False)]
    assert ending == ".mkv" or [one[2] for one in packets(done.path, "video")][:-1] == steps
    assert not list(tmp_path.glob(".*"))


def test_stamps_of_broadcasts_start_late_and_stay(tmp_path: Path) -> None:
    source = write_raw_clip(
        tmp_path / "in.ts",
        drawn_frames(24),
        [180000 + 3600 * n + n % 3 for n in range(24)],
        time_base=Fraction(1, 90000),
        sound=48000,
    )
    done = transform_clip(source, tmp_path / "out.mp4", same)
    assert frame_times(source)[0] > 1 and frame_times(done.path) == frame_times(source)
    before, after = packets(source, "audio"), packets(done.path, "audio")
    assert [one[0] for one in after] == [one[0] for one in before]
    # Broadcasts repeat a header of seven bytes in front of every packet; files have it once.
    assert [one[3] for one in after] == [one[3][7:] for one in before]


@pytest.mark.parametrize("matrix", [QUARTER, MIRROR, tuple(-one for one in QUARTER[:8]) + QUARTER[8:]])
def test_orientation_is_applied_for_work_and_kept_in_the_file(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(3), EVEN[:3], matrix=matrix)
    facts = read_facts(source)
    assert facts.orientation.matrix == matrix
    assert (facts.height, facts.width) == ((160, 96) if facts.orientation.transposed else (96, 160))
    seen = all_frames(source)
    assert seen.shape[1:3] == (facts.height, facts.width)
    with av.open(str(source)) as container:
        stored = next(iter(container.decode(video=0))).to_ndarray(format="rgb24")
    assert torch.equal(as_seen(torch.from_numpy(stored)[None].float() / 255, facts.orientation), seen[:1])
    done = transform_clip(source, tmp_path / "out.mp4", same)
    again = read_facts(done.path)
    assert again.orientation == facts.orientation and (again.height, again.width) == (facts.height, facts.width)
    assert float((all_frames(done.path) - seen).abs().mean()) * 255 < 2.5


def test_a_quarter_turn_turns_as_ffmpeg_says(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(1), [0], matrix=QUARTER)
    with av.open(str(source)) as container:
        turned = next(iter(container.decode(video=0))).rotation
    assert turned == -90
    stored = torch.arange(6).reshape(1, 2, 3, 1)
    seen = as_seen(stored, orientation_of(QUARTER))[0, :, :, 0]
    assert seen.tolist() == [[3, 0], [4, 1], [5, 2]]
    assert torch.equal(as_stored(as_seen(stored, orientation_of(QUARTER)), orientation_of(QUARTER)), stored)


def test_turns_that_are_no_quarters_leave_frames_as_stored() -> None:
    orientation = orientation_of((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30))
    assert not orientation.exact and orientation.plain and orientation_of(None).plain


@pytest.mark.parametrize("colour", [(1, 1), (2, 1), (1, 5), (2, 5)])
def test_colour_range_and_matrix_stay_and_are_used(tmp_path: Path, colour: tuple[int, int]) -> None:
    drawn = drawn_frames(2)
    source = write_raw_clip(tmp_path / "in.mp4", drawn, EVEN[:2], colour=colour, pixel_format="yuv444p")
    assert float((all_frames(source) * 255 - drawn).abs().mean()) < 2.5
    done = transform_clip(source, tmp_path / "out.mp4", same)
    facts = read_facts(done.path)
    assert (facts.colour.range, facts.colour.space) == colour and facts.pixel_format.endswith("444p")
    assert float((all_frames(done.path) - all_frames(source)).abs().mean()) * 255 < 1.5


def test_ten_bits_stay_ten_bits(tmp_path: Path) -> None:
    source = write_raw_clip(
        tmp_path / "in.mkv", drawn_frames(2), [0, 40], time_base=Fraction(1, 1000), pixel_format="yuv420p10le"
    )
    assert read_facts(source).bits == 10
    done = transform_clip(source, tmp_path / "out.mp4", same)
    assert read_facts(done.path).pixel_format == "yuv420p10le"
    assert float((all_frames(done.path) - all_frames(source)).abs().mean()) * 255 < 1


@pytest.mark.parametrize("size", [(95, 160), (96, 161), (95, 161)])
def test_odd_sizes_stay(tmp_path: Path, size: tuple[int, int]) -> None:
    drawn = drawn_frames(3, *size)
    with ClipWriter(tmp_path / "odd.mp4", layout_of(*size, 25)) as writer:
        writer.write(drawn, range(3))
    assert any("instead of yuv420p" in note for note in writer.notes)
    assert float((all_frames(tmp_path / "odd.mp4") * 255 - drawn).abs().mean()) < 3
    done = transform_clip(tmp_path / "odd.mp4", tmp_path / "out.mp4", same)
    assert all_frames(done.path).shape == (3, *size, 3)


def test_metadata_of_any_name_is_kept_in_mp4(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(2), EVEN[:2], metadata={"title": "Ein Täst"})
    made = {"likeness": '{"systems": ["inswapper"]}', "备注": "换脸"}
    done = transform_clip(source, tmp_path / "out.mp4", same, options=WriteOptions(metadata=made))
    found = read_facts(done.path).metadata
    assert found["title"] == "Ein Täst" and {name: found[name] for name in made} == made


def test_sound_that_mp4_refuses_chooses_another_ending(tmp_path: Path) -> None:
    plain = write_raw_clip(tmp_path / "a.mkv", drawn_frames(2), [0, 40], time_base=Fraction(1, 1000), sound=44100)
    assert ending_for(read_facts(plain)) == ".mp4"
    lossless = write_raw_clip(
        tmp_path / "b.mkv", drawn_frames(2), [0, 40], time_base=Fraction(1, 1000), sound=48000, sound_codec="wavpack"
    )
    assert ending_for(read_facts(lossless)) == ".mkv"
    done = transform_clip(lossless, tmp_path / "out.mkv", same)
    assert packets(done.path, "audio") == packets(lossless, "audio")
    with pytest.raises(ClipNotWritten, match=r"choose \.mkv"):
        transform_clip(lossless, tmp_path / "out.mp4", same)
    assert not (tmp_path / "out.mp4").exists() and not list(tmp_path.glob(".*"))


def test_missing_and_falling_stamps_are_set_and_counted(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.h264", drawn_frames(10), [512 * n for n in range(10)])
    parts = list(read_frames(source, 4))
    stamps = [stamp for part in parts for stamp in part.stamps]
    assert len(stamps) == 10 and all(later > earlier for earlier, later in zip(stamps, stamps[1:], strict=False))
    done = transform_clip(source, tmp_path / "out.mp4", same)
    assert done.frames == 10 and len(frame_times(done.path)) == 10
    mended = sum(part.mended for part in parts)
    assert bool(mended) == any("no time stamp" in note for note in done.notes)


def cut(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (40, 96, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = write_raw_clip(tmp_path / "in.mp4", noise, [512 * n for n in range(40)])
    with pytest.raises(BadClip, match=r"lacks its index"):
        read_facts(cut(whole, tmp_path / "no index.mp4", 0.6))
    with (
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as made,
        av.open(str(whole)) as old,
    ):
        stream = made.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    half = cut(tmp_path / "front.mp4", tmp_path / "half.mp4", 0.6)
    target = tmp_path / "out.mp4"
    with pytest.raises(
        BadClip, match=r"half\.mp4: expected frames up to the clip's end, found damage after \d+ frames"
    ):
        transform_clip(half, target, same)
    assert not target.exists() and not list(tmp_path.glob(".*"))
    done = transform_clip(half, target, same, damaged="keep")
    assert 10 < done.frames < 40 and "damage after" in " ".join(done.notes)
    assert len(frame_times(target)) == done.frames


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "0 bytes"), (b"not a clip at all" * 99, "bytes it cannot"), (None, "no such file")]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadClip, match=word):
        read_facts(path)


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(BadClip, match="only audio"):
        read_facts(tmp_path / "a.wav")


def test_cancel_stops_within_a_frame_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(24), EVEN, sound=44100)
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transform_clip(source, tmp_path / "out.mp4", same, chunk=8, on_frame=stop)
    assert told == [(n, 24) for n in range(1, 6)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.mp4"]


def test_an_old_file_of_that_name_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(4), EVEN[:4])
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")

    def fail(frames: Tensor, first: int) -> Tensor:
        raise BadClip("x", expected="a", found="b", cure="c")

    with pytest.raises(BadClip):
        transform_clip(source, target, fail)
    assert target.read_bytes() == b"old"
    with pytest.raises(ClipNotWritten, match="the clip itself"):
        transform_clip(source, source, same)
    transform_clip(source, target, same)
    assert len(frame_times(target)) == 4


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipNotWritten, match=r"\.gif"):
        ClipWriter(tmp_path / "a.gif", layout_of(8, 8, 25))
    with pytest.raises(ClipNotWritten, match="nonsense"):
        ClipWriter(tmp_path / "a.mp4", layout_of(8, 8, 25), WriteOptions("nonsense"))
    with pytest.raises(ClipNotWritten, match="above 0"):
        layout_of(8, 8, 0.0)
    with (
        pytest.raises(ClipNotWritten, match="32 x 16"),
        ClipWriter(tmp_path / "a.mp4", layout_of(16, 32, 25)) as writer,
    ):
        writer.write(torch.zeros(1, 16, 16, 3), [0])
    with (
        pytest.raises(ClipNotWritten, match="at least one frame"),
        ClipWriter(tmp_path / "b.mp4", layout_of(16, 32, 25)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_the_encoder_in_every_build_serves_where_h264_is_missing(tmp_path: Path) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(24), EVEN)
    done = transform_clip(source, tmp_path / "out.mp4", same, options=WriteOptions("mpeg4"))
    assert read_facts(done.path).codec == "mpeg4" and frame_times(done.path) == frame_times(source)
    fine = write_raw_clip(
        tmp_path / "fine.mp4", drawn_frames(4), [3003 * n for n in range(4)], time_base=Fraction(1, 90000)
    )
    rounded = transform_clip(fine, tmp_path / "rounded.mp4", same, options=WriteOptions("mpeg4"))
    assert any("1/65535" in note for note in rounded.notes)
    wanted = frame_times(fine)
    assert all(abs(a - b) < Fraction(1, 60000) for a, b in zip(frame_times(rounded.path), wanted, strict=True))


def test_rates_are_the_usual_ones() -> None:
    assert layout_of(8, 8, 29.97).rate == Fraction(30000, 1001) and layout_of(8, 8, 23.976).rate == Fraction(
        24000, 1001
    )
    assert layout_of(8, 8, 25).rate == 25 and layout_of(8, 8, 12.5).rate == Fraction(25, 2)


def test_an_older_library_stores_turned_frames_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_raw_clip(tmp_path / "in.mp4", drawn_frames(2), EVEN[:2], matrix=QUARTER)
    from likeness_pack.media import layout

    class Old:
        video = type("video", (), {"stream": type("stream", (), {"VideoStream": object})})
        Codec = av.Codec
        error = av.error

    monkeypatch.setattr(layout, "pyav", lambda: Old)
    fitted, notes = layout.fitted(layout_like(read_facts(source)), "libx264")
    assert fitted.orientation.plain and (fitted.height, fitted.width) == (160, 96) and "upright" in notes[-1]


def test_a_missing_package_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(av_package.importlib, "import_module", missing)
    with pytest.raises(ClipPackageMissing, match=r'-m pip install "av>=14\.2"'):
        av_package.pyav()
