"""What lies beside the pictures of a clip: streams copied packet by packet, or a waveform that is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .av_package import opened, pyav
from .errors import BadAudio
from .facts import StreamFacts

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_AAC_SAMPLES = 1024
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)

Put = Callable[[Any], None]


class Beside(Protocol):
    """A source of packets that is asked for everything up to a time."""

    def advance(self, until: Fraction | None) -> None:
        """Write packets that start up to ``until`` seconds; None writes all that are left."""
        ...

    def close(self) -> None:
        """Close files."""
        ...


class CopiedStreams:
    """Packets of another file, untouched; memory for one packet.

    Args:
        path: the file they come from.
    """

    def __init__(self, path: Path) -> None:
        self._holder = opened(path)
        self._source = self._holder.__enter__()
        self._made: dict[int, Any] = {}
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None

    def join(self, streams: Sequence[StreamFacts], container: Any, put: Put) -> None:
        """Add streams to a container.

        Args:
            streams: which.
            container: PyAV's output container, not yet started.
            put: writes a packet.
        """
        self._put = put
        self._made = {one.index: _template(container, self._source.streams[one.index]) for one in streams}
        self._packets = self._source.demux(*(self._source.streams[one.index] for one in streams))
        self._next = self._following()

    def _following(self) -> Any:
        # A packet without bytes ends a stream and belongs to no file.
        return next((packet for packet in self._packets if packet.size), None)

    def advance(self, until: Fraction | None) -> None:
        """See `Beside.advance`."""
        while self._next is not None:
            packet = self._next
            stamp = packet.dts if packet.dts is not None else packet.pts
            if until is not None and stamp is not None and stamp * packet.time_base > until:
                return
            packet.stream = self._made[packet.stream.index]
            self._put(packet)
            self._next = self._following()

    def close(self) -> None:
        """See `Beside.close`."""
        self._holder.__exit__(None, None, None)


def _template(container: Any, stream: Any) -> Any:
    made = container.add_stream_from_template(template=stream, opaque=True)
    made.time_base = stream.time_base
    for name, value in stream.metadata.items():
        if name.lower() in ("language", "title", "handler_name"):
            made.metadata[name] = value
    return made


class EncodedWaveform:
    """A waveform as AAC.

    Args:
        waveform: (C, N) or (1, C, N), -1..1.
        sample_rate: samples per second.
        container: PyAV's output container, not yet started.
        put: writes a packet.

    Raises:
        BadAudio: another shape, channels without a common order of loudspeakers, or a rate that AAC does not know.
    """

    def __init__(self, waveform: Tensor, sample_rate: int, container: Any, put: Put) -> None:
        self._samples = one_waveform(waveform).clamp(-1, 1).float().cpu()
        if sample_rate not in _AAC_RATES:
            raise BadAudio(
                "sound to write",
                expected=f"{', '.join(map(str, _AAC_RATES[:-1]))} or {_AAC_RATES[-1]} samples per second, as AAC knows",
                found=str(sample_rate),
                cure="resample it, for example to 48000",
            )
        self._rate, self._put, self._done = sample_rate, put, 0
        self._layout = LAYOUTS[len(self._samples)]
        self._stream = container.add_stream("aac", rate=sample_rate, layout=self._layout)

    def advance(self, until: Fraction | None) -> None:
        """See `Beside.advance`."""
        total = self._samples.shape[1]
        wanted = total if until is None else min(total, int(until * self._rate))
        while self._done < wanted and (until is None or wanted - self._done >= _AAC_SAMPLES):
            part = self._samples[:, self._done : self._done + _AAC_SAMPLES].contiguous()
            frame = pyav().AudioFrame.from_ndarray(part.numpy(), format="fltp", layout=self._layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._done, Fraction(1, self._rate)
            self._done += part.shape[1]
            self._write(frame)
        if until is None:
            self._write(None)

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._put(packet)

    def close(self) -> None:
        """See `Beside.close`."""


def one_waveform(waveform: Tensor) -> Tensor:
    """Return (C, N) of a waveform (C, N) or (1, C, N).

    Raises:
        BadAudio: a batch, no samples, or a number of channels without a common order.
    """
    single = waveform[0] if waveform.ndim == 3 and len(waveform) == 1 else waveform
    if single.ndim != 2 or len(single) not in LAYOUTS or not single.shape[1]:
        raise BadAudio(
            "waveform",
            expected=f"one of {', '.join(map(str, LAYOUTS))} channels with samples, (1, C, N)",
            found=f"shape {tuple(waveform.shape)}",
            cure="take one entry of the batch, or mix it down to stereo",
        )
    return single
