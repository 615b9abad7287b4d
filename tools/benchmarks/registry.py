"""The one ordered list of topics."""

from __future__ import annotations

from collections.abc import Mapping

from .leaking import leaking
from .networks import detecting, encoding, parsing
from .pictures import exchanging, importing, restoring, speaking, swapping
from .rows import Topic
from .steps import controlling, transformer_steps, unet_steps, wide_steps

TOPICS: Mapping[str, Topic] = {
    "control": controlling,
    "unet": unet_steps,
    "transformer": transformer_steps,
    "512 x 512": wide_steps,
    "swap": swapping,
    "swap by steps": exchanging,
    "lip-sync": speaking,
    "restore": restoring,
    "detection": detecting,
    "encode": encoding,
    "parse": parsing,
    "import": importing,
    "leakage": leaking,
}
# Topics whose work stays on the CPU, whatever the device.
ON_CPU = frozenset({"swap", "detection", "encode", "parse", "import"})
# Topics whose rows are of one step, by family.
STEPS = frozenset({"unet", "transformer"})
