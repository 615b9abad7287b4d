"""Stand-in checkpoints for trials without the published weights; ``--help`` lists the kinds."""

from __future__ import annotations

from likeness_path import register

register()

from standins.command import main  # noqa: E402  (the package must be registered first)

if __name__ == "__main__":
    raise SystemExit(main())
