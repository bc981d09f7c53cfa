# OpenRPT's commands. pip's own settings (environment variables and configuration files) are
# respected. Another interpreter: make PYTHON=python3.12 setup

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed
SITE   := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# True where a new environment with --system-site-packages would see a torch that is recent enough.
# (Inside an active virtual environment it would not: that one's packages are not the system's.)
HAS_TORCH := import sys, torch; \
	release = tuple(int(part) for part in torch.__version__.split(".")[:2]); \
	sys.exit(release < (2, 8) or sys.prefix != sys.base_prefix)
OLD_PYTHON := import sys; \
	sys.exit("OpenRPT needs Python 3.11 or newer and this is " + sys.version.split()[0] + \
	": try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)

.PHONY: help setup demo test lint docs torture clean

help:
	@echo "make demo    score, warm up, train, evaluate and report on the demo's model and corpus (15 minutes)"
	@echo "make test    run the tests"
	@echo "make lint    ruff, mypy, who may import whom, and the site's links"
	@echo "make docs    build the documentation as a site, in build/site"
	@echo "make torture kill stages, fill disks, flip bits: does a restart end at the same result? (5 minutes)"
	@echo "make setup   create .venv and install OpenRPT in it (the commands above do it when needed)"
	@echo "make clean   remove .venv and the caches; runs and the download cache stay"

demo: $(STAMP)
	$(BIN)/openrpt demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# "python -m": with the user's own packages in view, pip may not put these scripts into .venv.
lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-cache
	$(SITE)

docs: $(STAMP)
	$(SITE)

torture: $(STAMP)
	$(BIN)/python scripts/torture.py --seconds 300

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(OLD_PYTHON)'
	@test -x $(BIN)/pip || if $(PYTHON) -c '$(HAS_TORCH)' 2>/dev/null; \
	then echo "using the torch of $(PYTHON)"; $(PYTHON) -m venv --system-site-packages .venv; \
	else $(PYTHON) -m venv .venv; fi
	@# The pin is for the torch that this file installs, never for the user's own.
	if grep -q 'include-system-site-packages = true' .venv/pyvenv.cfg; \
	then $(BIN)/python -m pip install -e '.[dev]'; \
	else $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'; fi
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
