# make book       run every page and render the book             PROFILE=embedded  COCO=folder  CONCEPT=giraffe  EFFORT=full
#                 on a Dask cluster                            DASK=tcp://host:8786, its scheduler file, or local
# make concept    run one concept's page and render it           CONCEPT=giraffe
#                 or of another kind that the pictures show      CONCEPT=zebra
# make serve      show the rendered book in a browser, at http://127.0.0.1:8000
# make publish    copy it, for any static host               DIR=folder  URL=https://host/book/ (for previews elsewhere)
# make pdf        print it, with an installed Chromium: _build/embedded/book.pdf
# make check      whether the verdicts of the last run are those on record in paper/verdicts.yml
# make test       run the tests
# make rehearsal  the paper's setting on a tiny release in the original formats, from the first message to the rendered book
# make lint       style and types
# make clean      remove what was built (not results/, which took the time)
#
# What fails says why on its last line, and ends with exit code 2; `make: *** ... Error 2` behind it is make's own.
# All but clean create .venv and install into it by themselves, again whenever pyproject.toml changes.

PYTHON  ?= python3.11
PROFILE ?= embedded
COCO    ?=
CONCEPT ?=
EFFORT  ?=
JOBS    ?= $(if $(filter embedded%,$(PROFILE)),2,1)# processes; a model that fills an accelerator has it alone
PAGES   ?= $(if $(filter 1,$(JOBS)),1,3)# side by side: one more than processes, as each waits for its kernel to start and to end
DASK    ?=
BIN      = .venv/bin
GIVEN   := $(foreach each,$(MAKEOVERRIDES),$(if $(findstring =,$(each)),$(firstword $(subst =, ,$(each)))))
STRAY   := $(filter-out PYTHON BIN PROFILE COCO CONCEPT EFFORT JOBS PAGES DASK DIR URL KN_% CUDA_% OMP_% MKL_% HF_% TORCH_%,$(GIVEN))
$(if $(STRAY),$(error No variable $(STRAY) here: they stand at the top of the Makefile. One for other programs goes before `make`))
DOIT     = exec $(BIN)/doit profile="$(PROFILE)" $(if $(COCO),coco="$(COCO)") $(if $(EFFORT),effort=$(EFFORT)) $(if $(DASK),dask="$(DASK)")

book concept check: export JOBS := $(JOBS)# not for the tests, which have folders of their own
book concept check: export KN_HERE := $(if $(findstring w,$(firstword -$(MAKEFLAGS))),$(PWD),$(CURDIR))# where the reader stands; -C brings w along

EDITION  = $(basename $(notdir $(PROFILE)))$(if $(CONCEPT),-$(subst $() ,-,$(CONCEPT)))

.PHONY: book concept check serve publish pdf test rehearsal lint clean

book: .venv/installed
	@$(DOIT) $(if $(CONCEPT),concept="$(CONCEPT)") compute
	@$(DOIT) -n $(PAGES) $(if $(CONCEPT),concept="$(CONCEPT)")
	@echo; echo "The book: $(CURDIR)/_build/$(EDITION)/html/index.html"
	@echo "To read it: make serve$(if $(filter embedded,$(PROFILE)),, PROFILE=$(PROFILE))$(if $(CONCEPT), CONCEPT=\"$(CONCEPT)\")"

serve pdf: .venv/installed
	@exec $(BIN)/python -m book $@ --edition "$(EDITION)"

publish: .venv/installed
	@test -n "$(DIR)" || { echo "Where to? make publish DIR=folder"; exit 2; }
	@exec $(BIN)/python -m book publish "$(DIR)" --edition "$(EDITION)" --url "$(URL)"

concept: .venv/installed
	@test -n "$(CONCEPT)" || { echo "Which concept? make concept CONCEPT=giraffe"; exit 2; }
	@$(DOIT) "concept:$(subst $() ,-,$(CONCEPT))"
	@$(DOIT) preview

check: .venv/installed
	@$(BIN)/python -m book claims --profile "$(PROFILE)" --check

test: .venv/installed
	@$(BIN)/pytest -n 2 --dist loadscope

rehearsal: .venv/installed
	@$(BIN)/pytest -m slow tests/test_rehearsal.py

lint: .venv/installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 with its venv module is needed, and '$(PYTHON)' is not that."; \
	  echo "Install it (Debian/Ubuntu: python3.11-venv; macOS: brew install python@3.11; conda: environment.yml),"; \
	  echo "or name it: make book PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv (once; some 3 minutes and 2.2 GB) ..."
	@$(PYTHON) -m venv .venv
	@rm -rf kn_core.egg-info # of earlier versions: it would speak for the installed one
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[book,dev]'
	@touch $@
