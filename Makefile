# Two commands: `make demo` and `make test`. Everything goes into .venv and demo/.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)

DEMO := butterfly-neon.png

# $(call apt,PACKAGES): install them, where that is ours to do: as root, on Debian or Ubuntu.
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing $(1) ..." && apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); } >&2

.PHONY: demo test figures browser postgres clean

# FAISS: two distributions of the same module. faiss-gpu takes faiss-cpu's place where there is an NVIDIA GPU and it loads.
ifeq ($(GPU),yes)
FAISS := $(BIN)/python -m pip uninstall --quiet --yes faiss-cpu && $(PIP) --force-reinstall --no-deps faiss-gpu && \
  $(BIN)/python -c 'import faiss' 2>/dev/null || { echo "faiss-gpu does not load here; faiss-cpu takes its place."; \
  $(BIN)/python -m pip uninstall --quiet --yes faiss-gpu; $(PIP) --force-reinstall --no-deps faiss-cpu; }
else
FAISS := true
endif

.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { $(call apt,python3-venv) && $(PYTHON) -m venv .venv; } || { \
	  echo "The venv module is missing; install it with: apt install python3-venv"; exit 1; }
	@echo "Installing into .venv (PyTorch is the large part) ..."
	@$(PIP) --editable .
	@$(FAISS)
	@$(BIN)/python -c 'import faiss'
	@touch $@

.venv/installed-dev: .venv/installed
	@$(PIP) --editable '.[heif,jxl,postgres,raw,svg,web,dev]'
	@$(FAISS)
	@touch $@

demo: .venv/installed
	@$(BIN)/python -m diffsim.retrieval.drawings demo/gallery
	@$(BIN)/diffsim index demo/gallery --index demo/index --by style --by instance
	@echo; echo "Same style as the query:"
	@$(BIN)/diffsim query demo/gallery/$(DEMO) --index demo/index --by style --top 7 --sheet demo/sheet.png --force
	@echo; echo "The ranked neighbours as a picture: demo/sheet.png"

# The page is tested in a real browser. Without one these tests are skipped, and the end of the run says so.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	  $(call apt,chromium chromium-driver fonts-dejavu-core) || true

# Catalogs are tested on a real server, which the tests start themselves; skipped likewise. Debian's package makes and
# starts one of its own, unless told not to.
postgres: CLUSTER := /etc/postgresql-common/createcluster.conf
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && \
	  mkdir -p $(dir $(CLUSTER)) && { [ -e $(CLUSTER) ] || echo "create_main_cluster = false" >$(CLUSTER); } && \
	  $(call apt,postgresql); } || true

test: .venv/installed-dev browser postgres
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal

# Every figure of README.md and docs/ that depends on the bundled network, again; hours. PAGE=pooling: of one page alone.
figures: .venv/installed-dev browser
	@$(BIN)/python benchmarks/figures.py $(DATA) $(if $(PAGE),--only $(PAGE))

clean:
	rm -rf .venv demo
