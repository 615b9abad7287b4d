"""How a clip is written: size, time base, pixel format, colour, encoder, container."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from .av_package import failures, pyav
from .errors import ClipNotWritten
from .facts import ClipFacts, Colour
from .orientation import Orientation

# H.264 where PyAV was built with it; MPEG-4 Part 2 is in every build.
ENCODERS = ("libx264", "libopenh264", "mpeg4")
# Nearly without visible loss (x264's own scale, 0 lossless to 51).
QUALITY = 18
# By ending: muxer, and whether stamps of any time base stay exact in it.
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_MPEG4_UNITS = 65535
# What a new file must not take over: facts of the old one that no longer hold.
_STALE = ("encoder", "major_brand", "minor_version", "compatible_brands", "rotate", "duration", "vendor_id")


@dataclass(frozen=True)
class ClipLayout:
    """What the pictures of a new clip look like.

    Attributes:
        height: of frames as seen.
        width: of frames as seen.
        time_base: unit of the stamps.
        rate: frames per second on average, for the header alone.
        pixel_format: wanted; another one with as much colour where the encoder or the size does not allow it.
        bits: of a colour value, 8 or more.
        colour: see `Colour`.
        pixel_aspect: width of a pixel by its height.
        orientation: how players turn the stored pictures.
        metadata: of the container.
        stream_metadata: of the stream of pictures.
    """

    height: int
    width: int
    time_base: Fraction
    rate: Fraction
    pixel_format: str = "yuv420p"
    bits: int = 8
    colour: Colour = Colour(1, 1, 1, 1)
    pixel_aspect: Fraction | None = None
    orientation: Orientation = Orientation()
    metadata: dict[str, str] = field(default_factory=dict)
    stream_metadata: dict[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Units from frame to frame on average."""
        return max(1, round(1 / (self.rate * self.time_base)))


def layout_like(facts: ClipFacts) -> ClipLayout:
    """The layout of a clip that shall look as another one does."""
    return ClipLayout(
        facts.height,
        facts.width,
        facts.time_base,
        facts.rate or 1 / (facts.time_base * facts.step),
        facts.pixel_format,
        facts.bits,
        facts.colour,
        facts.pixel_aspect,
        facts.orientation,
        _lasting(facts.metadata),
        _lasting(facts.stream_metadata),
    )


def layout_of(height: int, width: int, rate: float | Fraction) -> ClipLayout:
    """The layout of new pictures at a constant rate, BT.709.

    Raises:
        ClipNotWritten: a rate that is not above 0.
    """
    if not math.isfinite(rate) or rate <= 0:
        raise ClipNotWritten(
            "frame rate",
            expected="frames per second above 0",
            found=f"{float(rate):g}",
            cure="set it to 24, for example",
        )
    exact = _usual_rate(Fraction(rate))
    return ClipLayout(height, width, 1 / exact, exact)


def _usual_rate(rate: Fraction) -> Fraction:
    """29.97 and its like mean 30000/1001."""
    film = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return film if abs(film - rate) < Fraction(1, 200) and rate.denominator != 1 else rate.limit_denominator(100_000)


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    counted = ("_STATISTICS", "NUMBER_OF_")
    stale = {name for name in metadata if name.lower() in _STALE or name.upper().startswith(counted)}
    return {name: value for name, value in metadata.items() if name not in stale and name.upper() != "BPS"}


def ending_for(facts: ClipFacts) -> str:
    """The ending of a clip that takes every copied stream of another one: .mp4, else .mov, else .mkv."""
    wanted = {stream.codec for stream in facts.others}
    for ending, muxer in CONTAINERS.items():
        if wanted <= supported(muxer):
            return ending
    return ".mkv"


def supported(muxer: str) -> set[str]:
    """Codecs that a container takes."""
    container = pyav().open(io.BytesIO(), "w", format=muxer)
    try:
        return set(container.supported_codecs)
    finally:
        container.close()


def choose_encoder(wanted: str = "auto") -> str:
    """The first encoder that PyAV has.

    Raises:
        ClipNotWritten: the one that was asked for is not there.
    """
    for name in ENCODERS if wanted == "auto" else (wanted,):
        if _encoder(name) is not None:
            return name
    have = [name for name in ENCODERS if _encoder(name) is not None]
    raise ClipNotWritten(
        f"encoder {wanted}",
        expected="an encoder of this PyAV",
        found=f"none of that name (it has {', '.join(have)})",
        cure='set the encoder to "auto"',
    )


def _encoder(name: str) -> Any:
    try:
        codec = pyav().Codec(name, "w")
    except failures(ValueError):
        return None
    return codec if codec.type == "video" else None


def fitted(layout: ClipLayout, encoder: str) -> tuple[ClipLayout, tuple[str, ...]]:
    """Return the layout that the encoder can write, and sentences about what had to change."""
    notes = []
    formats = {one.name for one in _encoder(encoder).video_formats or ()}
    chosen = _pixel_format(layout, formats)
    if chosen != layout.pixel_format.replace("yuvj", "yuv"):
        notes.append(f"pixels are stored as {chosen} instead of {layout.pixel_format}")
    base = layout.time_base
    if encoder == "mpeg4" and base.denominator > _MPEG4_UNITS:
        base = Fraction(1, _MPEG4_UNITS)
        notes.append(f"MPEG-4 knows no finer time than 1/{_MPEG4_UNITS} s, to which stamps are rounded")
    layout, told = _turnable(layout)
    return replace(layout, pixel_format=chosen, time_base=base), (*notes, *told)


def _turnable(layout: ClipLayout) -> tuple[ClipLayout, tuple[str, ...]]:
    """Without its orientation where PyAV cannot write one: frames are then stored as they are seen."""
    if layout.orientation.matrix is None or hasattr(pyav().video.stream.VideoStream, "set_display_matrix"):
        return layout, ()
    aspect = 1 / layout.pixel_aspect if layout.pixel_aspect and layout.orientation.transposed else layout.pixel_aspect
    told = "this PyAV writes no rotation (18.1 does): frames are stored upright"
    return replace(layout, orientation=Orientation(), pixel_aspect=aspect), (told,)


def _pixel_format(layout: ClipLayout, formats: Iterable[str]) -> str:
    """The wanted format or the nearest that the encoder has, without less colour; odd sizes need every pixel's own."""
    have = set(formats) or {"yuv420p"}
    wanted = layout.pixel_format.replace("yuvj", "yuv")
    deep = "10le" if layout.bits > 8 and "yuv420p10le" in have else ""
    odd_wide, odd_high = layout.width % 2, layout.height % 2
    if layout.orientation.transposed:
        odd_wide, odd_high = odd_high, odd_wide
    if wanted.startswith("yuv") and "420" in wanted and not odd_wide and not odd_high:
        ranked = [wanted, f"yuv420p{deep}", "yuv420p"]
    elif wanted.startswith(("yuv", "nv")) and "444" not in wanted and not odd_wide and ("422" in wanted or odd_high):
        ranked = [wanted if "422" in wanted else f"yuv422p{deep}", f"yuv422p{deep}", "yuv422p", f"yuv444p{deep}"]
    elif wanted.startswith(("gray", "mono", "nv")) and not odd_wide and not odd_high:
        ranked = [f"yuv420p{deep}", "yuv420p"]
    else:
        ranked = [wanted if "444" in wanted else f"yuv444p{deep}", f"yuv444p{deep}", "yuv444p"]
    return next((name for name in [*ranked, wanted, "yuv420p"] if name in have), sorted(have)[0])
