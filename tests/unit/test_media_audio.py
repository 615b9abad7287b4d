"""Sound of clips as waveforms: rates, gaps, starts, and clips with a waveform of their own."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clip_files import drawn_frames, packets, write_raw_clip
from likeness_pack.media.audio import read_audio, waveform_of
from likeness_pack.media.errors import BadAudio, BadPicture
from likeness_pack.media.layout import layout_of
from likeness_pack.media.pictures import read_picture
from likeness_pack.media.write import ClipWriter
from torch import Tensor

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, pitch: float = 440.0) -> Tensor:
    return torch.sin(torch.arange(int(seconds * rate)) * 2 * math.pi * pitch / rate)[None] * 0.5


def write_wav(path: Path, samples: Tensor, stamps: list[int] | None = None) -> Path:
    """16-bit sound of (C, N), in pieces that start at the given samples (Matroska keeps them)."""
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout=layout)
        pieces = samples.tensor_split(len(stamps or [0]), dim=1)
        for piece, start in zip(pieces, stamps or [0], strict=True):
            values = (piece.T.reshape(1, -1) * 32767).round().short().numpy()
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_comes_back_as_it_is(tmp_path: Path) -> None:
    both = torch.cat([tone(), tone(pitch=660)])
    found = read_audio(write_wav(tmp_path / "a.wav", both))
    assert found.samples.shape == (1, 2, RATE) and found.sample_rate == RATE and found.seconds == 1.0
    torch.testing.assert_close(found.samples[0], both, atol=1e-4, rtol=0)
    part = read_audio(tmp_path / "a.wav", origin=Fraction(1, 4), seconds=Fraction(1, 2))
    torch.testing.assert_close(part.samples[0], both[:, RATE // 4 : RATE * 3 // 4], atol=1e-4, rtol=0)


def test_gaps_and_late_starts_are_silence(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.mkv", tone(), [RATE // 2, RATE * 2])
    found = read_audio(path).samples[0, 0]
    assert len(found) == RATE * 5 // 2
    assert float(found[: RATE // 2].abs().max()) == 0 and float(found[RATE : 2 * RATE].abs().max()) == 0
    torch.testing.assert_close(found[RATE // 2 : RATE], tone()[0, : RATE // 2], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[RATE * 2 :], tone()[0, RATE // 2 :], atol=1e-3, rtol=0)


def test_a_clip_gets_a_waveform_in_time_with_its_frames(tmp_path: Path) -> None:
    samples = torch.zeros(1, 1, 2 * RATE)
    samples[..., RATE : RATE + RATE // 2] = tone(0.5)[0]
    with ClipWriter(tmp_path / "a.mp4", layout_of(96, 160, 25), audio=(samples, RATE)) as writer:
        writer.write(drawn_frames(50), range(50))
    found = read_audio(tmp_path / "a.mp4")
    assert found.sample_rate == RATE and abs(found.seconds - 2) < 0.1
    loud = found.samples[0, 0].abs()
    assert float(loud[: RATE - 1500].max()) < 0.02 and float(loud[RATE + 1000 : RATE + 6000].max()) > 0.4
    assert len(packets(tmp_path / "a.mp4", "video")) == 50


def test_waveforms_that_cannot_be_are_refused(tmp_path: Path) -> None:
    silent = write_raw_clip(tmp_path / "in.mp4", drawn_frames(2), [0, 512])
    with pytest.raises(BadAudio, match="a stream of sound"):
        read_audio(silent)
    with pytest.raises(BadAudio, match="one waveform"):
        waveform_of({"waveform": torch.zeros(2, 1, 8), "sample_rate": 8000})
    with pytest.raises(BadAudio, match="something else"):
        waveform_of(None)
    assert waveform_of({"waveform": tone()[None], "sample_rate": RATE}).as_audio()["sample_rate"] == RATE
    with pytest.raises(BadAudio, match=r"\(1, 3, 8\)"):
        ClipWriter(tmp_path / "a.mp4", layout_of(96, 160, 25), audio=(torch.zeros(1, 3, 8), RATE))
    with pytest.raises(BadAudio, match="96000 samples per second, as AAC knows, found 192000"):
        ClipWriter(tmp_path / "a.mp4", layout_of(96, 160, 25), audio=(torch.zeros(1, 2, 8), 192000))
    with pytest.raises(BadAudio, match="start earlier"):
        read_audio(write_wav(tmp_path / "a.wav", tone()), origin=Fraction(9))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.wav", "in.mp4"]


def test_pictures_are_read_upright_and_others_refused(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = read_picture(tmp_path / "turned.png")
    assert found.shape == (1, 6, 4, 3) and float(found[0, :, 3].min()) == 1 and float(found[0, :, :3].max()) == 0
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(BadPicture, match="a file that is none"):
        read_picture(tmp_path / "x.png")
    with pytest.raises(BadPicture, match="no such file"):
        read_picture(tmp_path / "y.png")
