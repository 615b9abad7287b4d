"""Tests of the farm run by ``make farm-test`` alone: they need Ray's environment, named by LIKENESS_FARM_PYTHON."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("LIKENESS_FARM_PYTHON") else ["test_*.py"]
