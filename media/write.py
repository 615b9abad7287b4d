"""Writing a clip frame by frame: stamps as given, other streams beside it, nothing left behind when it fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from .av_package import failures, pyav, reason
from .beside import Beside, CopiedStreams, EncodedWaveform
from .errors import ClipNotWritten
from .facts import ClipFacts
from .layout import CONTAINERS, QUALITY, ClipLayout, choose_encoder, fitted
from .orientation import as_stored

_LOG = logging.getLogger(__name__)
_MOVIE_UNITS = 100_000_000


@dataclass(frozen=True)
class WriteOptions:
    """How a clip is encoded.

    Attributes:
        encoder: PyAV's name, or ``"auto"``: H.264 where it is, else MPEG-4.
        quality: 0 (lossless with x264) to 51; 18 shows next to no loss.
        metadata: added to the container's own; every name is kept in MP4 too.
    """

    encoder: str = "auto"
    quality: int = QUALITY
    metadata: Mapping[str, str] = field(default_factory=dict)


class ClipWriter:
    """A clip while it is written; use it with ``with``. It takes its name when complete and is removed on any error.

    Frames are encoded without B frames: each is stored in the order in which it is seen, so that stamps stay as they
    are in every container.

    Args:
        target: the file; .mp4, .mov or .mkv.
        layout: of `layout_like` or `layout_of`.
        options: see `WriteOptions`.
        copy: a clip whose sound and subtitles are copied untouched.
        audio: (waveform (1, C, N), samples per second) instead, written as AAC.

    Attributes:
        notes: sentences about what could not be kept.
        encoder: PyAV's name of the encoder in use.
        frames: written so far.

    Raises:
        ClipNotWritten: no such encoder or container, a container that refuses a stream, no room.
        BadAudio: a waveform that cannot be encoded.
    """

    def __init__(
        self,
        target: Path,
        layout: ClipLayout,
        options: WriteOptions | None = None,
        *,
        copy: ClipFacts | None = None,
        audio: tuple[Tensor, int] | None = None,
    ) -> None:
        options = options or WriteOptions()
        self.encoder = choose_encoder(options.encoder)
        self._wanted = layout
        self._layout, self.notes = fitted(layout, self.encoder)
        self.target, self.frames = target, 0
        self._partial = target.with_name(f".{target.stem}.part{target.suffix}")
        self._durations: dict[int, int] = {}
        self._waiting: tuple[Tensor, int] | None = None
        self._beside: list[Beside] = []
        self._container = self._opened(options, copy)
        with ExitStack() as undo:
            undo.callback(self._discard)
            self._stream = self._picture_stream(options)
            self._start(copy, audio)
            undo.pop_all()

    def write(self, frames: Tensor, stamps: Sequence[int], durations: Sequence[int] | None = None) -> None:
        """Write frames.

        Args:
            frames: (B, H, W, 3) as seen, float 0..1 or uint8.
            stamps: of each in units of the layout's time base, rising.
            durations: of each in the same unit, 0 where unknown; the last frame's counts, the others last until the
                next one.
        """
        size = (self._wanted.height, self._wanted.width)
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (*size, 3) or len(stamps) != len(frames):
            raise ClipNotWritten(
                self.target.name,
                expected=f"frames of {size[1]} x {size[0]} with a time stamp each",
                found=f"a tensor {tuple(frames.shape)} and {len(stamps)} stamps",
                cure="give the frames the size of the clip",
            )
        stored = as_stored(frames, self._layout.orientation)
        for place, (frame, stamp) in enumerate(zip(stored, stamps, strict=True)):
            self._encode(frame, stamp, durations[place] if durations else 0)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as undo:
            undo.callback(self._discard)
            if kind is None:
                self._finish()
                undo.pop_all()

    def _opened(self, options: WriteOptions, copy: ClipFacts | None) -> Any:
        if self.target.suffix.lower() not in CONTAINERS:
            raise ClipNotWritten(
                self.target.name,
                expected=f"a name that ends with {', '.join(CONTAINERS)}",
                found=self.target.suffix or "no ending",
                cure="choose one of these endings",
            )
        muxer = CONTAINERS[self.target.suffix.lower()]
        choices = {} if muxer == "matroska" else {"movflags": "use_metadata_tags", "movie_timescale": self._movie(copy)}
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            container = pyav().open(str(self._partial), "w", format=muxer, options=choices)
        except failures() as cause:
            raise self._refused(cause) from cause
        container.metadata.update({**self._wanted.metadata, **options.metadata})
        return container

    def _movie(self, copy: ClipFacts | None) -> str:
        """A unit in which the start of every stream is whole; the muxer's own is a thousandth of a second."""
        unit = self._layout.time_base.denominator
        for stream in copy.others if copy is not None else ():
            unit = math.lcm(unit, stream.time_base.denominator if stream.time_base else 1)
        return str(unit if 1000 <= unit <= _MOVIE_UNITS else max(1000, self._layout.time_base.denominator))

    def _picture_stream(self, options: WriteOptions) -> Any:
        layout, turned = self._layout, self._layout.orientation.transposed
        stream = self._container.add_stream(self.encoder, rate=layout.rate.limit_denominator(1_000_000))
        stream.width, stream.height = (layout.height, layout.width) if turned else (layout.width, layout.height)
        stream.pix_fmt = layout.pixel_format
        context = stream.codec_context
        context.time_base = layout.time_base
        stream.time_base = layout.time_base
        if layout.pixel_aspect:
            context.sample_aspect_ratio = layout.pixel_aspect
        for name, code in zip(
            ("color_range", "colorspace", "color_primaries", "color_trc"),
            (layout.colour.range, layout.colour.space, layout.colour.primaries, layout.colour.transfer),
            strict=True,
        ):
            if code is not None:
                setattr(context, name, code)
        context.options = self._choices(options.quality)
        if self.encoder == "mpeg4":
            context.bit_rate = 8 * layout.height * layout.width
        context.max_b_frames = 0
        stream.metadata.update(layout.stream_metadata)
        self._orient(stream)
        return stream

    def _choices(self, quality: int) -> dict[str, str]:
        return {"crf": str(quality), "bf": "0"} if self.encoder == "libx264" else {}

    def _orient(self, stream: Any) -> None:
        orientation = self._layout.orientation
        if orientation.matrix is not None:
            stream.set_display_matrix(orientation.matrix)

    def _add_beside(self, copy: ClipFacts | None, audio: tuple[Tensor, int] | None) -> None:
        container = self._container
        if audio is not None:
            self._beside.append(EncodedWaveform(audio[0], audio[1], container, container.mux))
        elif copy is not None and copy.others:
            source = CopiedStreams(copy.path)
            self._beside.append(source)
            source.join(copy.others, container, container.mux)

    def _start(self, copy: ClipFacts | None, audio: tuple[Tensor, int] | None) -> None:
        try:
            self._add_beside(copy, audio)
            self._container.start_encoding()
        except failures(ValueError) as cause:
            raise self._refused(cause) from cause

    def _encode(self, frame: Tensor, stamp: int, duration: int) -> None:
        stamp, duration = self._in_units(stamp), self._in_units(duration)
        if self._waiting is not None:
            self._put(*self._waiting, stamp)
        self._durations[stamp] = duration
        self._waiting = (frame, stamp)

    def _in_units(self, stamp: int) -> int:
        if self._layout.time_base == self._wanted.time_base:
            return stamp
        return round(stamp * self._wanted.time_base / self._layout.time_base)

    def _put(self, frame: Tensor, stamp: int, following: int | None) -> None:
        """Encode a frame, now that it is known when the next one starts."""
        # Files give durations in the order of decoding, which is wrong where that is not the order of time.
        last = self._durations[stamp] or self._layout.step
        self._durations[stamp] = following - stamp if following is not None else last
        picture = self._picture(frame)
        picture.pts, picture.time_base = stamp, self._layout.time_base
        self._mux(picture)
        self.frames += 1

    def _mux(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                packet.duration = self._durations.pop(packet.pts, 0)
                for source in self._beside:
                    source.advance(packet.dts * packet.time_base)
                self._container.mux(packet)
        except failures() as cause:
            raise self._refused(cause) from cause

    def _picture(self, frame: Tensor) -> Any:
        layout = self._layout
        deep = layout.pixel_format.endswith("10le") and frame.is_floating_point()
        if frame.is_floating_point():
            top = 65535 if deep else 255
            frame = (frame.float().clamp(0, 1) * top).round_().to(torch.int32 if deep else torch.uint8)
        pixels = frame.cpu().contiguous().numpy()
        made = pyav().VideoFrame.from_ndarray(
            pixels.astype("uint16") if deep else pixels, format="rgb48le" if deep else "rgb24"
        )
        colour: dict[str, Any] = {"src_color_range": 2, "dst_color_range": layout.colour.range or 1}
        if layout.colour.space is not None:
            made.colorspace = layout.colour.space
        return made.reformat(format=layout.pixel_format, **colour)

    def _finish(self) -> None:
        if self._waiting is not None:
            self._put(*self._waiting, None)
        self._mux(None)
        if not self.frames:
            raise ClipNotWritten(
                self.target.name, expected="at least one frame", found="none", cure="give it pictures to write"
            )
        try:
            for source in self._beside:
                source.advance(None)
            self._close()
            self._partial.replace(self.target)
        except failures() as cause:
            raise self._refused(cause) from cause

    def _close(self) -> None:
        for source in self._beside:
            source.close()
        self._beside = []
        self._container.close()

    def _discard(self) -> None:
        """Leave no file behind; what goes wrong on the way matters less than the error that led here."""
        try:
            self._close()
        except failures(ValueError) as cause:
            _LOG.debug("closing a discarded clip: %s", cause)
        self._partial.unlink(missing_ok=True)

    def _refused(self, cause: BaseException) -> ClipNotWritten:
        return ClipNotWritten(
            self.target.name,
            expected=f"a container that takes {self.encoder} and the streams beside it, and room on the disk",
            found=reason(cause),
            cure="choose .mkv, which takes every stream, or another folder",
        )
