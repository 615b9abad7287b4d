"""What a clip is, before its frames are read: size, time base, colour, orientation, its other streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .av_package import codec_name, failures, opened, pyav, reason
from .errors import BadClip
from .orientation import Orientation, matrix_of, orientation_of

# Streams that are copied as they are.
COPIED = ("audio", "subtitle")
_UNSPECIFIED = 2


@dataclass(frozen=True)
class Colour:
    """How numbers mean colours, as the codes of ITU-T H.273; None where the clip does not say.

    Attributes:
        range: 1 for 16..235, 2 for 0..255.
        space: matrix between RGB and YUV.
        primaries: of the three colours.
        transfer: of light.
    """

    range: int | None = None
    space: int | None = None
    primaries: int | None = None
    transfer: int | None = None


@dataclass(frozen=True)
class StreamFacts:
    """A stream beside the pictures.

    Attributes:
        index: its place in the file.
        kind: ``"audio"``, ``"subtitle"`` or another of PyAV's.
        codec: name.
        time_base: unit of its time stamps.
    """

    index: int
    kind: str
    codec: str
    time_base: Fraction | None


@dataclass(frozen=True)
class ClipFacts:
    """Facts of a clip.

    Attributes:
        path: the file.
        container: PyAV's names of the format, separated by commas.
        codec: of the pictures.
        index: of the stream of pictures in the file.
        height: in pixels as a player shows it.
        width: in pixels as a player shows it.
        time_base: unit of time stamps in seconds.
        rate: frames per second on average, None where unknown.
        frames: number of frames as the file says or its duration gives; frames that are read are the truth.
        pixel_format: as stored.
        bits: of a colour value.
        colour: see `Colour`.
        pixel_aspect: width of a pixel by its height; None where unknown.
        orientation: see `Orientation`.
        metadata: of the container.
        stream_metadata: of the stream of pictures.
        others: streams that can be copied untouched.
        left_out: streams that are neither pictures nor copied, in words.
    """

    path: Path
    container: str
    codec: str
    index: int
    height: int
    width: int
    time_base: Fraction
    rate: Fraction | None
    frames: int
    pixel_format: str
    bits: int
    colour: Colour = Colour()
    pixel_aspect: Fraction | None = None
    orientation: Orientation = Orientation()
    metadata: dict[str, str] = field(default_factory=dict)
    stream_metadata: dict[str, str] = field(default_factory=dict)
    others: tuple[StreamFacts, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Time from frame to frame on average, in units of the time base; 1 at least."""
        return max(1, round(1 / (self.rate * self.time_base))) if self.rate else 1


def read_facts(path: Path) -> ClipFacts:
    """Read what a clip is; decodes its first frame.

    Raises:
        BadClip: not a clip, no pictures in it, or none that can be decoded.
        ClipPackageMissing: PyAV is not installed.
    """
    with opened(path) as container:
        stream = picture_stream(container, path)
        try:
            frame = next(iter(container.decode(stream)), None)
        except failures() as cause:
            raise undecodable(path, 0, cause) from cause
        if frame is None:
            raise BadClip(path.name, expected="frames", found="none", cure="copy or download the file again")
        return _facts(path, container, stream, frame)


def picture_stream(container: Any, path: Path) -> Any:
    """The first stream of moving pictures; covers of music do not count.

    Raises:
        BadClip: there is none.
    """
    cover = pyav().stream.Disposition.attached_pic if hasattr(pyav().stream, "Disposition") else 0
    for stream in container.streams.video:
        if not stream.disposition & cover and stream.codec_context is not None:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no stream"
    raise BadClip(
        path.name, expected="a clip with pictures", found=f"only {kinds}", cure="choose a clip that shows something"
    )


def undecodable(path: Path, number: int, cause: BaseException) -> BadClip:
    """The error for a clip that breaks off or goes bad at frame ``number``."""
    return BadClip(
        path.name,
        expected="frames up to the clip's end",
        found=f"damage after {number} frames ({reason(cause)})",
        cure='copy or download the file again, or set damaged to "keep" to work on the frames before that',
    )


def _facts(path: Path, container: Any, stream: Any, frame: Any) -> ClipFacts:
    orientation = orientation_of(_matrix(frame))
    height, width = int(frame.height), int(frame.width)
    rate = stream.average_rate or stream.guessed_rate
    aspect = stream.sample_aspect_ratio
    others = [one for one in container.streams if one.index != stream.index]
    copied = [one for one in others if one.type in COPIED and codec_name(one) != "unknown"]
    return ClipFacts(
        path,
        container.format.name,
        codec_name(stream),
        stream.index,
        width if orientation.transposed else height,
        height if orientation.transposed else width,
        Fraction(stream.time_base),
        Fraction(rate) if rate else None,
        _frames(container, stream, rate),
        frame.format.name,
        max((component.bits for component in frame.format.components), default=8),
        _colour(frame),
        Fraction(aspect) if aspect else None,
        orientation,
        dict(container.metadata),
        dict(stream.metadata),
        tuple(StreamFacts(one.index, one.type, codec_name(one), one.time_base) for one in copied),
        tuple(f"stream {one.index} ({one.type})" for one in others if one not in copied),
    )


def _frames(container: Any, stream: Any, rate: Fraction | None) -> int:
    if stream.frames:
        return int(stream.frames)
    if not rate:
        return 0
    if stream.duration is not None:
        return round(stream.duration * stream.time_base * rate)
    return round(Fraction(container.duration or 0, pyav().time_base) * rate)


def _matrix(frame: Any) -> tuple[int, ...] | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return matrix_of(bytes(data))
    return None


def _colour(frame: Any) -> Colour:
    """A frame's codes; 0 (range) and 2 (the others) say that nothing is said."""
    codes = [int(getattr(frame, name, _UNSPECIFIED)) for name in ("colorspace", "color_primaries", "color_trc")]
    space, primaries, transfer = (None if code in (_UNSPECIFIED, 3) else code for code in codes)
    span = int(frame.color_range) or (2 if frame.format.name.startswith("yuvj") else 0)
    return Colour(span or None, space, primaries, transfer)
