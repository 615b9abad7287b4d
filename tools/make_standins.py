"""Stand-in checkpoints for trials without the published weights; ``--help`` lists the kinds."""

from __future__ import annotations

from standins.command import main

if __name__ == "__main__":
    raise SystemExit(main())
