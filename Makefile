# `make demo` shows the program at work; `make test` runs every check, `make torture` the long ones. All need Python 3.11
# and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
# For example: make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
TRAIN_FLAGS ?=
# What make torture tries, the fast half included.
TORTURE ?= tests/torture tests/hostile
DEMO ?= demo
DEMO_SCANS ?= 12
DEMO_SEED ?= 7
# Scans simulated at the same time; each takes about 1 GB of memory.
DEMO_PROCS ?= 2

MODELS ?= out/models
MODEL_SCANS ?= 360
MODEL_SEED ?= 20261
COHORT := $(MODELS)/cohort

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
SIMULATED := $(DEMO)/.simulated-$(DEMO_SCANS)-$(DEMO_SEED)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install $(PIP_FLAGS) --constraint constraints.txt

# What the demo tells besides the summary of the run: the heads of all three tables, and where to look.
define TELL
import sys, pathlib, pandas, epvs_cohort
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.store import folder_name
pandas.set_option("display.width", 120)
counts = pathlib.Path(sys.argv[1])
cohort = epvs_cohort.read_cohort(counts)
for name in ("scans", "lesions", "qc"):
    print(f"\n{name}: the first rows", getattr(cohort, name).head().to_string(max_cols=10, max_colwidth=28), sep="\n")
for scan in cohort.lesions["scan"].mode()[:1]:
    picture = OutputPaths.of(counts).figures / f"{folder_name(scan)}.png"
    print(f"\nfound lesions of {scan}, the scan with most of them: {picture.resolve()}")
endef
export TELL

# Scans of the people whose label maps come last by name, beyond the ninth: they validate.
define LAST_TWO
import pathlib, sys, pandas
from epvs_cohort.simulate.anatomy import anatomy_files, load_anatomy
people = pandas.read_table(sys.argv[1])
held_out = [load_anatomy(path).name for path in anatomy_files(pathlib.Path(sys.argv[2]))[9:]]
print("\n".join(people.loc[people["anatomy"].isin(held_out), "participant_id"] + "_PDw"))
endef
export LAST_TWO

.PHONY: demo test torture lint atlas models bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) --editable .
	@touch $@

$(INSTALLED_TEST): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.[test]'
	@touch $@ $(INSTALLED)

# The folder is made anew: an interrupted simulation leaves one that cannot be gone on with.
$(SIMULATED): | $(INSTALLED)
	@rm -rf $(DEMO)/scans && mkdir -p $(DEMO)
	$(BIN)/epvs-cohort simulate $(DEMO)/scans --scans $(DEMO_SCANS) --seed $(DEMO_SEED) --n-procs $(DEMO_PROCS)
	@touch $@

demo: $(INSTALLED) $(SIMULATED)
	$(BIN)/epvs-cohort run $(DEMO)/scans --out $(DEMO)/counts.parquet --figures --report
	@$(BIN)/python -c "$$TELL" $(DEMO)/counts.parquet

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint --failure-threshold warning Dockerfile; \
	else echo "no hadolint for this machine: Dockerfile not linted"; fi

test: lint
	$(BIN)/python -m pytest

# Every fault that a run must survive, forced often and at random: an hour or more on two cores. Some need root, for
# file systems of their own, and say so where they are left out.
torture: $(INSTALLED_TEST)
	$(BIN)/python -m pytest -m "torture or not torture" $(TORTURE)

# Makes the bundled template, atlas and simulated head anew; the same inputs give the same bytes.
atlas: $(INSTALLED)
	$(PIP) --editable '.[atlas]'
	$(BIN)/python -m epvs_cohort.data.build_atlas
	$(BIN)/python -m epvs_cohort.data.build_anatomy

# Trains both bundled models from nothing into out/models, comparable to what ships in epvs_cohort/model/bundles, which
# a random start of another kind preceded. People 1 to 9
# of ANATOMIES, by name, train, 10 and 11 validate, the rest is never read.
# For example: make models ANATOMIES=FOLDER TRAIN_FLAGS="--n-procs 8"
models: $(INSTALLED)
	@test -d "$(ANATOMIES)" || { echo "make models: ANATOMIES=FOLDER of 11 or more label maps is needed"; exit 2; }
	@rm -rf $(MODELS)/people && mkdir -p $(MODELS)/people
	@for map in $$(ls "$(ANATOMIES)" | grep -E '\.(nii|nii\.gz|mgz)$$' | LC_ALL=C sort | head -n 11); do \
		ln -sf "$$(realpath "$(ANATOMIES)")/$$map" $(MODELS)/people/; done
	$(BIN)/epvs-cohort simulate $(COHORT) --prepared --kind training --anatomies $(MODELS)/people \
		--true-slice --scans $(MODEL_SCANS) --seed $(MODEL_SEED) --n-procs $(DEMO_PROCS)
	@$(BIN)/python -c "$$LAST_TWO" $(COHORT)/participants.tsv $(MODELS)/people > $(MODELS)/validation.txt
	$(BIN)/epvs-cohort train --recipe gp-unet-sim --anatomies $(MODELS)/people --out $(MODELS)/gp-unet-sim \
		$(TRAIN_FLAGS)
	$(BIN)/epvs-cohort train $(COHORT) --counts $(COHORT)/counts_ac_slice.csv --init $(MODELS)/gp-unet-sim \
		--recipe gp-unet-sim-ac --protocol rotterdam-ac-slice --validation $(MODELS)/validation.txt \
		--validation-points $(COHORT)/points.csv --out $(MODELS)/gp-unet-sim-ac

# Some twenty minutes on two idle cores; its one table is out/bench/table.md.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/detection.py
	$(BIN)/python benchmarks/bench.py --out out/bench

# A software bill of materials of what is installed in $(VENV), made by a tool in an environment of its own.
.PHONY: sbom
sbom: $(INSTALLED)
	$(BIN)/python -m venv out/sbom-tool
	out/sbom-tool/bin/python -m pip --disable-pip-version-check --quiet install \
		--constraint constraints-sbom.txt cyclonedx-bom
	out/sbom-tool/bin/cyclonedx-py environment --output-reproducible --of JSON -o out/sbom.json $(BIN)/python
	@echo "out/sbom.json: audit it where the database of faults can be reached"

clean:
	rm -rf $(DEMO) build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
