# Every target sets itself up: a virtual environment with the versions of constraints.txt, made anew when they change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEVICE_VENV := .venv-device
DEVICE_READY := $(DEVICE_VENV)/.ready
DEMO := demo
export NO_MKDOCS_2_WARNING := 1
MODEL := runs/model
SHIPPED := edge_runtime/lesion_edge/bundle
WEIGHTS ?= imagenet
DATA_LICENSE := $(file < models/robust/DATA_LICENSE)

.DEFAULT_GOAL := help
.PHONY: help demo model test test-device test-portability check docs bench wheel clean

help:  ## show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

$(READY): EXTRAS := train,export,cpu,serve,signed,dicom,test,docs,dev
$(DEVICE_READY): EXTRAS := cpu,test
$(READY) $(DEVICE_READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lesion Edge needs Python 3.11 or later: make PYTHON=python3.12 …")'
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

demo: $(READY)  ## generate images, train, export to int8, classify a folder the training never saw
	rm -rf $(DEMO)
	$(BIN)/python -m lesion_train.synthetic $(DEMO)/images --per-class 800 --seed 1
	$(BIN)/python -m lesion_train.synthetic $(DEMO)/new --per-class 100 --seed 2
	$(BIN)/lesion-train $(DEMO)/images --output $(DEMO)/run --weights none --image-size 96 --epochs 6 \
	  --validation-split 0.25
	$(BIN)/lesion-export $(DEMO)/run --output $(DEMO)/bundle --quantize
	$(BIN)/lesion-infer $(DEMO)/new --model $(DEMO)/bundle --evaluate --output $(DEMO)/predictions.csv
	head -4 $(DEMO)/predictions.csv
	@echo "images, run, bundle and predictions are in $(DEMO)/"
	@if test -f $(SHIPPED)/manifest.json; then \
	  echo "The same with the model that ships. It knows photographs, these are drawings: many may be refused as" \
	    "out_of_distribution, or mistaken."; \
	  $(BIN)/lesion-infer $(DEMO)/new --output $(DEMO)/shipped.csv; \
	else echo "no model ships with this checkout: make model DATA=…/lesions.csv"; fi

model: $(READY)  ## DATA=…/lesions.csv [WEIGHTS=FILE]: train the model that ships, export it, put it into the package
	$(if $(DATA),,$(error make model DATA=…/lesions.csv WEIGHTS=…: which images?))
	$(BIN)/lesion-train $(DATA) --output $(MODEL)/run --recipe robust --validation-split 0.15 --weights $(WEIGHTS) \
	  --image-size 160 --set train_size_ratio=0.8 --set epochs=16 --set samples_per_epoch=5000 --set watched_images=60 \
	  --data-license "$(DATA_LICENSE)" $(if $(wildcard $(MODEL)/run),--resume)
	$(BIN)/lesion-export $(MODEL)/run --output $(MODEL)/bundle --quantize --card-notes models/robust/card_notes.md
	$(BIN)/python -m lesion_export.ship $(MODEL)/bundle --output $(SHIPPED)

test: $(READY)  ## every test, two at a time; those that need a GPU, real images or emulators skip visibly
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --durations 20

test-device: $(DEVICE_READY)  ## the device's tests, where nothing is installed but [cpu], pytest and hypothesis
	$(DEVICE_VENV)/bin/python -m pytest tests/edge_runtime

test-portability: $(READY)  ## as root on Debian: installs emulators of other CPUs and compares int8 on them
	$(BIN)/python benchmarks/portability.py --install
	LESION_EDGE_ALL_CPUS=1 $(BIN)/python -m pytest tests/export/test_portability.py

# deptry: first that every import is declared and every declared package imported, then that the extras of one folder
# bring what that folder imports (the other extras count as development packages, which no folder may import).
TOOLS := docs,dev,bench
DEPTRY := $(BIN)/deptry --no-ansi

check: $(READY)  ## format, lint, types, imports against pyproject.toml, workflow and citation against their schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict
	$(DEPTRY) train export edge_runtime serve --optional-dependencies-dev-groups test,$(TOOLS)
	$(DEPTRY) edge_runtime --ignore DEP002 --optional-dependencies-dev-groups train,export,serve,test,$(TOOLS)
	$(DEPTRY) train --ignore DEP002 --optional-dependencies-dev-groups export,cpu,gpu,serve,test,$(TOOLS)
	$(DEPTRY) export --ignore DEP002 --optional-dependencies-dev-groups train,gpu,serve,test,$(TOOLS)
	$(DEPTRY) serve --ignore DEP002 --optional-dependencies-dev-groups train,export,gpu,test,$(TOOLS)
	$(DEPTRY) tests benchmarks docs --ignore DEP002
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/pre-commit validate-config

docs: $(READY)  ## the documentation site, in site/
	$(BIN)/mkdocs build --strict

bench: $(READY)  ## BUNDLE=… RUN=… IMAGES=…: speed, and parity with the Keras model
	$(BIN)/python benchmarks/latency.py $(RUN) $(BUNDLE) $(IMAGES)
	$(BIN)/python benchmarks/parity.py $(RUN) $(BUNDLE) $(IMAGES)

wheel: $(READY)  ## the wheel and its bill of materials, in dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m lesion_export.wheel_bom dist/*.whl --constraints constraints.txt

clean:  ## remove environments, demo, wheels and site
	rm -rf $(VENV) $(DEVICE_VENV) $(DEMO) dist site
