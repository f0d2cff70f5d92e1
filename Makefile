# Each target makes what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml compiled_modules.txt $(shell find batcher -name '*.py')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: serve test test-python lint bench proto clean

serve: $(VENV)/.serve
	$(BIN)/python serve.py

# Two at a time: most of the time goes into starting servers.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The same, with the sources of the compiled modules in their place.
test-python: $(VENV)/.test
	WITHOUT_MYPYC=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/end_to_end --ignore tests/benchmarks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.serve
	$(BIN)/python benchmarks/ceiling.py
	$(BIN)/python benchmarks/fixed_cost.py

# The messages of gRPC, in a descriptor pool of their own. Not by the compiler that kserve brings into .venv: what a newer one makes
# does not run with the oldest protobuf that setup.py allows.
PROTO := batcher/rpc/_generated
proto:
	$(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.76.0
	cd $(PROTO) && $(CURDIR)/build/proto/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. *.proto
	sed -i -e 's/^from google.protobuf import descriptor_pool as .*/from batcher.rpc._generated.pool import POOL/' \
		-e 's/_descriptor_pool.Default()/POOL/' -e 's/^import model_config_pb2/from batcher.rpc._generated import model_config_pb2/' \
		$(PROTO)/*_pb2.py $(PROTO)/*_pb2.pyi

# torch first and by itself: an index that offers CPU-only builds of it is then used for it alone.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.serve: $(VENV)/.torch $(SOURCES)
	$(PIP) -e .
	touch $@

$(VENV)/.test: $(VENV)/.torch $(SOURCES)
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.serve

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.test $(VENV)/.serve

clean:
	rm -rf $(VENV) build dist *.egg-info
	find . -name '*.so' -delete
