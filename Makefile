# make demo | test | lint | bench: each sets up .venv first and needs nothing but Python 3.10 to 3.12.
# PYTHON=/path/to/python chooses the interpreter that .venv is made with.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q
STAMP := $(VENV)/installed.stamp
SUITABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3 python; do \
	if $$python -c '$(SUITABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

.PHONY: demo test lint bench web clean

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(STAMP)
	@mkdir -p out
	$(BIN)/vasa3d bench render --save-scene out/scene --force
	$(BIN)/vasa3d bench animate
	$(BIN)/vasa3d bench create --gaussians 40000
	$(BIN)/python benchmarks/bench_composite.py out/scene

# The web player, from its source; needs Node 20 and nothing of Python.
web:
	cd web && npm ci --no-audit --no-fund && npm run lint && npm test && npm run build

clean:
	rm -rf $(VENV) build dist

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUITABLE)'; then \
		echo "error: no Python 3.10, 3.11 or 3.12 found (mediapipe has no build for other versions)." >&2; \
		echo "hint: install one, then run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; fi
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) -c constraints.txt -e '.[dev]'
	@# OpenCV, which mediapipe brings, needs the system's OpenGL; its headless build does not.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || \
		$(PIP) --force-reinstall --no-deps opencv-contrib-python-headless==4.11.0.86
	touch $@
