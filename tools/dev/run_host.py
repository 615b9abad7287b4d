"""ComfyUI with the pack loaded, on 127.0.0.1, until Ctrl-C: ``python tools/dev/run_host.py [--port 8188]``.

Models, pictures and settings stay in ``.host`` (or ``--base``); the pack is copied there anew at each start.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from comfy_process import ROOT, ComfyProcess, HostFailed


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--base", type=Path, default=ROOT / ".host")
    arguments = parser.parse_args()
    try:
        with ComfyProcess(arguments.base, port=arguments.port) as host:
            ours = [name for name in host.object_info() if name.startswith("Likeness")]
            print(
                f"{host.url}  {len(ours)} Likeness nodes; models in {host.base / 'models'}; Ctrl-C ends it", flush=True
            )
            while host.running:
                time.sleep(0.5)
            print(host.log[-3000:])
            return 1
    except HostFailed as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
