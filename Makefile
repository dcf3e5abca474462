# make demo and make test set up .venv themselves; Python 3.11 or later is all they need.

PYTHON ?= python3
# Options for the installation of torch alone, for instance an index with builds for another device.
TORCH_OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

# Options for pytest: a process for each core, which takes over tests of others when it has none left.
PYTEST_OPTIONS ?= -n auto --dist worksteal
PYTEST := $(BIN)/python -m pytest $(PYTEST_OPTIONS)
KERNELS := $(VENV)/.kernels

# For the regressor: portraits and views. For the generator: more people, clouds of 5,000 points.
DATA ?= data/tiny
CLOUDS ?= data/people
# For the decoder: all pictures of a person in one light.
LIGHT ?= data/light
RUN ?= runs/tiny
CHECKPOINT ?= model_cards/pointillist-tiny
SIZE ?= tiny
GENERATOR ?= tiny-anchored
# Further options of the commands; the last value of an option counts.
DATA_OPTIONS ?= --num_proc 2
CLOUDS_OPTIONS ?= --num_proc 2
LIGHT_OPTIONS ?= --num_proc 2
TRAIN_OPTIONS ?=
GENERATOR_OPTIONS ?= --batch_size 8 --max_steps 10700 --portrait_dropout 0.15
ASSEMBLE_OPTIONS ?= --grammar every_face --max_points 8000 --align_points False \
	--num_candidates 6
# One after the other, each beginning where the last one ended.
DECODER_STAGES ?= projected-decoder
# On CPUs two processes of one thread outpace one of two. Elsewhere, for instance:
# make checkpoint LAUNCH=".venv/bin/accelerate launch --num_processes 1"
PRECISION ?= bf16
LAUNCH ?= OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true $(BIN)/accelerate launch --multi_gpu \
	--num_processes 2 --num_machines 1 --mixed_precision $(PRECISION) --dynamo_backend no
TRAIN = $(LAUNCH) examples/train.py
# Training says by itself how long it will take.
SAY = @printf '\n== %s, %s ==\n'

# Models are read from disk; a test or demo that reaches for the network is at fault.
export HF_HUB_OFFLINE = 1
# Idle OpenMP threads sleep instead of spinning: on few cores that is several times faster.
export GOMP_SPINCOUNT = 0

.DEFAULT_GOAL := help
.PHONY: help install demo app test test-slow rehearsal quality style docs bench checkpoint publish clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 14

install: $(INSTALLED)  ## Set up .venv with the versions of constraints.txt

$(INSTALLED): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH_OPTIONS) "$(TORCH)"
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)  ## From a photograph to an avatar, in outputs/demo
	$(BIN)/python examples/demo.py --output outputs/demo

app: $(INSTALLED)  ## Serve the page on which a photograph becomes an avatar
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[app]"
	$(BIN)/pointillist-hf app

# Kernels are compiled once, not by each process that finds numba's cache empty.
$(KERNELS): $(INSTALLED) tests/compile_kernels.py $(wildcard src/pointillist_hf/kernels/*.py \
		src/pointillist_hf/rendering/*.py src/pointillist_hf/rendering/cpu/*.py \
		src/pointillist_hf/decoding/cpu/*.py)
	$(BIN)/python tests/compile_kernels.py rendering flat & first=$$!; \
		$(BIN)/python tests/compile_kernels.py depth anchored && wait $$first
	touch $@

test: $(INSTALLED) $(KERNELS)  ## Run the tests that are quick
	$(PYTEST)

test-slow: $(INSTALLED) $(KERNELS)  ## Run the tests that take their time
	$(PYTEST) -m "slow and not gpu and not flame"

rehearsal: $(INSTALLED) $(KERNELS)  ## Walk the paper's road on made-up data, ten minutes
	$(BIN)/python -m pytest -m rehearsal tests/rehearsal

quality: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

style: $(INSTALLED)  ## Repair style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## Build the documentation in outputs/site; a link or name that leads nowhere fails
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# On a GPU: python benchmarks/graph_generation.py. After examples/ablate_decoder.py: table_two.py.
BENCHMARKS := $(filter-out benchmarks/graph_generation.py benchmarks/table_two.py, \
	$(wildcard benchmarks/*.py))

bench: $(INSTALLED)  ## Measure model, sampling, population, fits, rendering, generation (an hour)
	set -e; for script in $(BENCHMARKS); do $(BIN)/python $$script; done

checkpoint: $(INSTALLED)  ## Train the tiny model from nothing, in ten hours; an interrupted run goes on
	$(SAY) "1 of 10: data of the regressor" "about 17 minutes of two CPU cores"
	$(BIN)/python examples/make_dataset.py --output $(DATA) --num_train 2048 --num_test 32 \
		--num_skin_points 600 --hair_budget 450 $(DATA_OPTIONS)
	$(SAY) "2 of 10: regressor" "minutes below"
	$(TRAIN) --data $(DATA) --output $(RUN)-regressor --stage regressor --size $(SIZE) \
		$(TRAIN_OPTIONS)
	$(SAY) "3 of 10: data of the generator" "about 94 minutes of two CPU cores"
	$(BIN)/python examples/make_dataset.py --output $(CLOUDS) --num_train 10000 --num_test 64 \
		--num_bins 512 --num_skin_points 4200 --hair_budget 1100 --own_every_face True \
		--rare_share 0.6 --use_snapshots True --num_portraits 2 --num_views 0 \
		--num_rig_points 256 --identities_per_shard 64 $(CLOUDS_OPTIONS)
	$(SAY) "4 of 10: regressor, of these people" "minutes below"
	$(TRAIN) --data $(CLOUDS) --output $(RUN)-layouts --stage regressor --size $(SIZE) \
		--start_from $(RUN)-regressor --max_steps 1600 --learning_rate 4e-4 $(TRAIN_OPTIONS)
	mkdir -p $(RUN) && cp -r $(RUN)-layouts/rig_regressor $(RUN)/
	$(SAY) "5 of 10: generator" "minutes below"
	$(TRAIN) --data $(CLOUDS) --output $(RUN) --stage generator --size $(GENERATOR) \
		$(GENERATOR_OPTIONS) $(TRAIN_OPTIONS)
	$(SAY) "6 of 10: data of the decoder" "about 17 minutes of two CPU cores"
	$(BIN)/python examples/make_dataset.py --output $(LIGHT) --num_train 160 --num_test 8 \
		--num_skin_points 700 --hair_budget 400 --num_portraits 2 --num_views 5 \
		--num_bins 512 --image_size 320 --use_one_light True --identities_per_shard 8 \
		$(LIGHT_OPTIONS)
	$(SAY) "7 of 10: decoder" "minutes below"
	set -e; for stage in $(DECODER_STAGES); do OMP_NUM_THREADS=1 $(BIN)/python examples/train.py \
		--stage $$stage --size $(SIZE) --data $(LIGHT) --output $(RUN)-decoder $(TRAIN_OPTIONS); done
	cp -r $(RUN)-decoder/gaussian_decoder $(RUN)/
	$(SAY) "8 of 10: assembly" "seconds"
	$(BIN)/python examples/assemble.py --components $(RUN) --output $(RUN)-whole $(ASSEMBLE_OPTIONS)
	$(SAY) "9 of 10: decoder, of generated clouds" "about 30 minutes"
	OMP_NUM_THREADS=1 $(BIN)/python examples/train.py --stage generated-decoder --size $(GENERATOR) \
		--data $(LIGHT) --output $(RUN)-whole $(TRAIN_OPTIONS)
	cp -r $(RUN)-whole/gaussian_decoder $(RUN)/
	$(SAY) "10 of 10: assembly" "seconds"
	$(BIN)/python examples/assemble.py --components $(RUN) --output $(CHECKPOINT) $(ASSEMBLE_OPTIONS)

PUBLISH ?= pointillist-hf
# Lists what would go where; with a token and PUBLISH_OPTIONS= it is sent.
PUBLISH_OPTIONS ?= --dry-run

publish: $(INSTALLED)  ## Publish model and people; without PUBLISH_OPTIONS= only say what would be sent
	HF_HUB_OFFLINE=0 $(BIN)/pointillist-hf push $(CHECKPOINT) $(PUBLISH)/$(notdir $(CHECKPOINT)) \
		$(PUBLISH_OPTIONS)
	test -d $(DATA) || echo "$(PUBLISH)/pointillist-people: nothing to send yet, see make checkpoint: $(DATA)"
	test ! -d $(DATA) || HF_HUB_OFFLINE=0 $(BIN)/pointillist-hf push $(DATA) \
		$(PUBLISH)/pointillist-people --card model_cards/pointillist-people/README.md $(PUBLISH_OPTIONS)

clean:  ## Remove .venv, caches and outputs; data and runs stay
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache build dist src/*.egg-info
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
