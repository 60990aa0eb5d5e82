# Everything a user or CI needs: `make demo`, `make test`. Each sets up what is missing first.
VENV ?= .venv
PYTHON ?= python3
PROCESSES ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-fast serve test test-lowest test-newest test-all lint docs dist bench faults setup graphics clean distclean

setup: $(STAMP) graphics

# torch goes first, pinned: a later resolve would otherwise be free to fetch another build of it.
# editable_mode=compat is a plain .pth file: setuptools' finder adds 50-100 ms to every start. It warns
# that this mode may go one day.
$(STAMP): pyproject.toml constraints.txt
	@found=$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)); \
	$$found -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11 to 3.13 is needed, $$found is $$($$found --version 2>&1):" \
			"remove $(VENV) if it is there, then make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo 'installing into $(VENV), once: 2.9 GB with torch for CPUs, 2 to 20 minutes by the network'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo '1 of 2: torch'
	$(BIN)/python -m pip install --quiet torch==2.13.0
	@echo '2 of 2: some 240 packages'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt \
		--config-settings editable_mode=compat -e '.[dev]'
	touch $(STAMP)

graphics: $(STAMP)
	@sh deploy/ensure-graphics.sh $(BIN)/python

demo: setup
	$(BIN)/python -m flows.cli.demo demo

demo-fast: setup
	$(BIN)/python -m flows.cli.demo demo-fast

serve: setup
	$(BIN)/foundry serve

# Two processes, each with all tests of a file: most tests use one core.
test: setup
	$(BIN)/python -m pytest -m "not slow" -n $(PROCESSES) --dist loadfile

# The same tests with the lowest and with the newest versions that pyproject.toml allows, each in an
# environment of its own. The pinned set of constraints.txt is what `make test` has.
test-lowest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-lowest test-newest:
	test -x .venv-$@/bin/python || $(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip install --quiet uv
	.venv-$@/bin/uv pip install --quiet --upgrade --python .venv-$@/bin/python \
		--resolution $(RESOLUTION) -e '.[dev]'
	.venv-$@/bin/python -m pytest -m "not slow" -n $(PROCESSES) --dist loadfile

test-all: setup
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -m "not slow" -n $(PROCESSES) --dist loadfile
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/vulture

# The site, from docs/ and the code, into build/site: pages open from there, without a server.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Runs that are killed at random, hundreds of them: most of an hour.
faults: setup
	$(BIN)/python -m tests.faults.rounds --rounds 200
	$(BIN)/python -m tests.faults.rounds --rounds 40 --store s3
	$(BIN)/python -m tests.faults.rounds --rounds 36 --campaign-rounds 36 --pipeline real

# A source archive, and the wheel that is built from it, in dist/.
dist: setup
	rm -rf dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --outdir dist .

# One table of what is timed here, each beside what one would take else. Those programs have an
# environment of their own; where it cannot be made their columns stay empty.
bench: setup
	test -x .venv-bench/bin/dvc || { $(PYTHON) -m venv .venv-bench \
		&& .venv-bench/bin/python -m pip install --quiet dvc vla-eval==0.8.0 fastdigest; } \
		|| echo 'dvc, vla-eval and fastdigest are not installed: no columns of theirs' >&2
	test .venv-readers/.installed -nt benchmarks/readers.txt || { $(BIN)/python -m venv .venv-readers \
		&& $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
			"$$(.venv-readers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth" \
		&& .venv-readers/bin/python -m pip install --quiet --no-deps -r benchmarks/readers.txt \
		&& touch .venv-readers/.installed; } \
		|| echo 'megatron-energon and litdata are not installed: no columns of theirs' >&2
	FOUNDRY_BENCH_READERS=$(CURDIR)/.venv-readers/bin/python \
	PATH="$(CURDIR)/.venv-bench/bin:$$PATH" FOUNDRY_BENCH_PYTHON=$(CURDIR)/.venv-bench/bin/python \
		FOUNDRY_INTEROP_VLA_EVAL="$$(ls $(CURDIR)/.venv-bench/bin/vla-eval >/dev/null 2>&1 \
			&& echo $(CURDIR)/.venv-bench/bin/python)" \
		$(BIN)/python benchmarks/bench.py

# What tools left in the checkout and make again by themselves; the environment and data stay.
clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name .git -prune -o -path ./$(VENV) -prune -o -path ./.foundry -prune \
		-o -name __pycache__ -type d -prune -exec rm -rf {} +

# Data, too: every artifact, run and lineage of ./.foundry. `foundry lineage gc` removes what nothing
# needs. CONFIRM=yes answers for a person; without it, and without a terminal, nothing is removed.
distclean:
	@test "$(CONFIRM)" = yes || { test -t 0 \
		&& printf 'remove .foundry, with all artifacts, runs and their lineage? [yes/no] ' \
		&& read answer && test "$$answer" = yes; } \
		|| { echo 'nothing was removed: answer yes, or give CONFIRM=yes' >&2; exit 1; }
	rm -rf .foundry
	@$(MAKE) --no-print-directory clean
