"""The one ordered list of topics."""

from __future__ import annotations

from collections.abc import Mapping

from .leaking import leaking
from .pictures import detecting, importing, restoring, swapping
from .rows import Topic
from .steps import transformer_steps, unet_steps

TOPICS: Mapping[str, Topic] = {
    "unet": unet_steps,
    "transformer": transformer_steps,
    "swap": swapping,
    "restore": restoring,
    "detection": detecting,
    "import": importing,
    "leakage": leaking,
}
# Topics whose work stays on the CPU, whatever the device.
ON_CPU = frozenset({"swap", "detection", "import"})
# Topics whose rows are of one step, by family.
STEPS = frozenset({"unet", "transformer"})
