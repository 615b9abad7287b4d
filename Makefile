# Short names for the commands of this project. Each does its own set-up on a machine with Python 3.11 and a package
# index. Without make (Windows): run `python tools/dev/setup_env.py`, then the commands below with .venv's Python.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := .venv/bin/python
# Parts that need a newer ComfyUI run in the checkout's interpreter, where COMFYUI_PATH and COMFYUI_PYTHON name one.
HOST_PYTHON := $(if $(COMFYUI_PATH),$(COMFYUI_PYTHON),$(RUN))
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test ui-test farm-test host bench lint parity parity-table check-package abuse clean

help:
	@echo "make demo                 a first picture in a real ComfyUI; prints where the pictures are"
	@echo "make test                 the whole suite (with COMFYUI_PATH and COMFYUI_PYTHON: host tests on that ComfyUI)"
	@echo "make ui-test              the canvas in a real browser (Debian's chromium), in three versions of the interface"
	@echo "make farm-test            many items on several ComfyUI with Ray, and in RabbitMQ workers"
	@echo "make host                 ComfyUI with the pack loaded, on 127.0.0.1"
	@echo "make bench                times and memory, as ratios (DEVICE=cuda where there is a card)"
	@echo "make abuse                hostile files, graphs and pictures, the long version, with counts"
	@echo "make lint                 ruff and mypy"
	@echo "make parity GOLDEN=<dir>  official numbers of a folder of golden files"
	@echo "make check-package        what the registry would check, and the packed zip in a fresh ComfyUI"

setup:
	@$(PYTHON) tools/dev/setup_env.py

demo: setup
	$(RUN) tools/demo.py

test: setup
	$(RUN) tools/dev/run_tests.py

ui-test: setup
	$(RUN) tools/dev/frontends.py
	LIKENESS_UI_TEST=1 $(RUN) -m pytest -q tests/ui

farm-test: setup
	$(RUN) tools/dev/run_farm_tests.py

abuse: setup
	$(RUN) tools/dev/run_abuse.py

host: setup
	$(RUN) tools/dev/run_host.py

bench: setup
	$(HOST_PYTHON) tools/bench.py $(if $(DEVICE),--device $(DEVICE))

lint: setup
	$(RUN) -m ruff check .
	$(RUN) tools/dev/check_types.py

parity: setup
	@test -n "$(GOLDEN)" || { echo "usage: make parity GOLDEN=<folder of golden files>"; exit 2; }
	$(HOST_PYTHON) tests/golden/run_parity.py "$(GOLDEN)"

# Results of this ComfyUI into the table of docs/parity.md.
parity-table: setup
	@test -n "$(GOLDEN)" || { echo "usage: make parity-table GOLDEN=<folder of golden files>"; exit 2; }
	$(HOST_PYTHON) tests/golden/run_parity.py "$(GOLDEN)" --json tests/golden/results.json
	$(RUN) tools/dev/parity_table.py

check-package: setup
	$(RUN) tools/dev/check_package.py

clean:
	rm -rf .venv .venv-tools .venv-farm .host .pytest_cache .mypy_cache .ruff_cache
