"""What importing the pack adds to a ComfyUI that has its engine loaded: ``python tools/dev/import_cost.py``.

The pack is imported as a host does it, from its root ``__init__.py``, in a fresh process; times depend on the machine,
the lists of modules do not. Python compiles the files at the first start after an install or update and reads what it
compiled at every later one, so there are two times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"

_PROGRAM = """
import importlib.util, json, sys, time
root, support, blocked, compiled = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
sys.path.insert(0, support)
from host_inprocess import engine
began = time.process_time()
engine()
host = time.process_time() - began
for name in blocked:
    for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[loaded]
    sys.modules[name] = None
modules, path, name = set(sys.modules), list(sys.path), "likeness-pack"
if compiled:
    sys.dont_write_bytecode, sys.pycache_prefix = False, compiled
spec = importlib.util.spec_from_file_location(name, root + "/__init__.py", submodule_search_locations=[root])
started, began = time.perf_counter(), time.process_time()
module = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
seconds, share = time.perf_counter() - started, (time.process_time() - began) / host
new = sorted(set(sys.modules) - modules)
path_kept = path == sys.path
inputs = {key: sorted(node.INPUT_TYPES()) for key, node in module.NODE_CLASS_MAPPINGS.items()}
foreign = [item for item in new if item.split(".")[0] not in (name, *sys.stdlib_module_names)]
print("RESULT" + json.dumps(dict(seconds=seconds, share=share, foreign=foreign, path_kept=path_kept, inputs=inputs,
                                 own=sum(item.split(".")[0] == name for item in new))))
"""


@dataclass(frozen=True)
class ImportCost:
    """One import of the pack.

    Attributes:
        seconds: wall time of the import alone.
        foreign: modules that it loaded beside its own and the standard library's.
        path_kept: whether ``sys.path`` stayed as it was.
        nodes: ids of the nodes that registered; each gave its INPUT_TYPES.
        own: how many modules of the pack were loaded.
        share: CPU time of the import against that of the engine's (with torch, which it loads).
    """

    seconds: float
    foreign: tuple[str, ...]
    path_kept: bool
    nodes: tuple[str, ...]
    own: int
    share: float


def measure(
    root: Path = ROOT, blocked: Sequence[str] = (), python: str = sys.executable, compiled: Path | None = None
) -> ImportCost:
    """Import the pack at ``root`` in a fresh process.

    Args:
        root: folder of the pack.
        blocked: packages whose import fails there.
        python: the interpreter.
        compiled: folder in which Python keeps, and looks for, the pack's compiled files; its own choice where None.
    """
    command = [python, "-c", _PROGRAM, str(root), str(SUPPORT), json.dumps(list(blocked)), str(compiled or "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    answer = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    if result.returncode or not answer:
        raise RuntimeError(f"the pack cannot be imported:\n{result.stderr[-4000:]}")
    values = json.loads(answer[-1].removeprefix("RESULT"))
    return ImportCost(
        values["seconds"],
        tuple(values["foreign"]),
        values["path_kept"],
        tuple(values["inputs"]),
        values["own"],
        values["share"],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        first, cost = (measure(compiled=Path(folder)) for _ in range(2))
    print(f"import of the pack: {1000 * cost.seconds:.0f} ms, {cost.own} modules, {len(cost.nodes)} nodes")
    print(f"at the first start after an install or update, when Python compiles it: {1000 * first.seconds:.0f} ms")
    print(f"loaded beside them: {', '.join(cost.foreign) or 'nothing'}")
