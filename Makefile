# make demo     train, evaluate and draw a small PS Mask R-CNN on generated pictures (minutes on a CPU)
# make test     formatter, linter, type checker and tests (about 12 minutes on two cores)
# make quick    the same checks with a selection of fast tests, in under a minute: for every day
# make mutants  list small changes of the code that no test notices (hours; PATHS="necks heads" for these rooms only)
# make mmcv     build the compiled mmcv in place of mmcv-lite (needs a C++ compiler; about 20 minutes)
# make docs     build the documentation and execute its notebooks: docs/_build/index.html
# Everything is installed into .venv. A torch that PYTHON or .venv already has (a CUDA build, say) is used as it is;
# otherwise the CPU build is installed.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test quick lint mutants docs mmcv install clean

ifneq ($(words $(VENV)),1)
  $(error VENV=$(VENV): a path without spaces is needed)
endif

install:
	@command -v $(PYTHON) > /dev/null || \
	  { echo "make: $(PYTHON) not found; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@$(PYTHON) requirements/install.py --venv $(VENV)

demo: install
	@$(BIN)/python -m mmms_plugin demo

lint: install
	@$(BIN)/python -m ruff format --check . && $(BIN)/python -m ruff check . && $(BIN)/python -m mypy
	@$(BIN)/python -m ruff check -q --preview --select PLW1514 .  # open() states the encoding
	@$(BIN)/lint-imports --no-logo --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

# Processes that run the tests, with one thread and about 1 GB each.
WORKERS ?= 2
PYTEST = PYTHONWARNDEFAULTENCODING=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: lint
	@MMMS_NO_SKIP=1 $(PYTEST) -m 'not compiled and not gpu and not thorough'

# Folders whose tests import no OpenMMLab host; there, tests of more than about a second are marked slow.
QUICK = tests/layers tests/necks tests/backbones tests/coco tests/size_ap tests/report tests/scale

quick: lint
	@$(PYTEST) -x -m 'not slow and not compiled and not gpu and not thorough' $(QUICK)

mutants: install
	@$(BIN)/python tools/mutants.py --workers $(WORKERS) $(OPTIONS) $(PATHS)

docs: install
	@$(BIN)/python -c 'import sphinx, myst_nb, furo, pandas' 2>/dev/null || \
	  $(PIP) install -q -c $(VENV)/constraints.txt sphinx myst-nb furo pandas
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

mmcv: install
	$(PIP) install -q -c $(VENV)/constraints.txt wheel ninja psutil
	$(PIP) uninstall -q -y mmcv-lite
	MMCV_WITH_OPS=1 $(PIP) install --no-build-isolation --no-deps $(MMCV_OPTIONS) mmcv==2.1.0
	@$(BIN)/python -c 'from mmms_plugin.compat import mmcv_ops; print(mmcv_ops())'

clean:
	rm -rf $(VENV) demo_out build docs/_build docs/generated docs/api docs/jupyter_execute *.egg-info
