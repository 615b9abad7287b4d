"""Clips made on the spot by PyAV alone, so that reading and writing are not checked against themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

# A quarter turn and a mirror image, as phones store them: a, b, u, c, d, v, x, y, w in 16.16 and 2.30.
ONE, LAST = 1 << 16, 1 << 30
QUARTER = (0, ONE, 0, -ONE, 0, 0, 0, 0, LAST)
MIRROR = (-ONE, 0, 0, 0, ONE, 0, 0, 0, LAST)


def drawn_frames(count: int, height: int = 96, width: int = 160) -> Tensor:
    """Frames (B, H, W, 3) uint8 that differ from each other and in every direction."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = [torch.stack([x * 255 // width, y * 255 // height, (x + y + 9 * n) // 2 % 256], -1) for n in range(count)]
    return torch.stack(frames).to(torch.uint8)


def write_raw_clip(
    path: Path,
    frames: Tensor | Iterator[Tensor],
    stamps: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 12800),
    matrix: Sequence[int] | None = None,
    sound: int | None = None,
    sound_codec: str = "aac",
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    colour: tuple[int, int] = (1, 1),
    metadata: dict[str, str] | None = None,
    size: tuple[int, int] = (96, 160),
) -> Path:
    """A clip with frames (B, H, W, 3) uint8 as stored at the given stamps, and a tone of ``sound`` samples a second."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = (frames.shape[1:3]) if isinstance(frames, Tensor) else size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.codec_context.color_range, stream.codec_context.colorspace = colour
        if matrix is not None:
            stream.set_display_matrix(matrix)
        voice = container.add_stream(sound_codec, rate=sound, layout="stereo") if sound else None
        for frame, stamp in zip(frames, stamps, strict=True):
            picture = av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")
            if "yuv" in pixel_format:
                picture = picture.reformat(
                    format=pixel_format, dst_colorspace=colour[1], src_color_range=2, dst_color_range=colour[0]
                )
            picture.pts, picture.time_base = stamp, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if voice is not None:
            seconds = float((stamps[-1] + stamps[-1] - stamps[-2]) * time_base)
            _tone(container, voice, seconds, int(sound or 1))
    return path


def _tone(container: Any, stream: Any, seconds: float, rate: int) -> None:
    wave = np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate) * 0.4
    for start in range(0, len(wave), 1024):
        part = np.tile(wave[start : start + 1024].astype("float32"), (2, 1))
        format_name = stream.codec_context.format.name
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for one in av.AudioResampler(format=format_name, layout="stereo", rate=rate).resample(frame):
            container.mux(stream.encode(one))
    container.mux(stream.encode(None))


def packets(path: Path, kind: str) -> list[tuple[Fraction, Fraction, int, bytes]]:
    """(pts, dts, duration, bytes) of every packet of the first stream of a kind, times in seconds."""
    with av.open(str(path)) as container:
        stream = next(one for one in container.streams if one.type == kind)
        return [
            (one.pts * one.time_base, one.dts * one.time_base, one.duration * one.time_base, bytes(one))
            for one in container.demux(stream)
            if one.size
        ]


def frame_times(path: Path) -> list[Fraction]:
    """Time of every frame in seconds, as a decoder gives it."""
    with av.open(str(path)) as container:
        return [one.pts * one.time_base for one in container.decode(video=0)]
