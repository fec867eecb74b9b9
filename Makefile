# Everything is run from here; `make check` is what CI runs.
VENV ?= .venv
SIZE ?= 256MiB
STORMS ?= 50
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help
# The tests start hundreds of processes: each module is compiled once, also where the environment would have it compiled anew.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help install tools lint format type test test-unit test-redis test-debian-redis test-power test-wheel test-deploy test-chaos chaos test-cluster test-qmp test-differential mutants campaigns endurance endurance-short check check-fast demo bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## a virtual environment in .venv with everything the project needs

$(STAMP): pyproject.toml .ci/install
	@.ci/install "$(VENV)"

tools: ## strace, e2fsprogs, xfsprogs, btrfs-progs and QEMU's tools, which some tests and the demo use (apt, as root)
	@.ci/tools

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP) ## let ruff put the files in order
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

type: $(STAMP) ## mypy, strict
	$(BIN)/mypy

test: $(STAMP) tools ## all tests: those that measure times, while the machine is quiet; then six files side by side
	$(BIN)/pytest $$(grep -rl --include='test_*.py' mark.alone tests) -m alone
	$(BIN)/pytest tests --ignore tests/deploy --ignore tests/chaos -m "not alone and not endurance" -n 6 --dist loadfile --no-loadscope-reorder

test-unit: $(STAMP) ## tests of single parts; seconds
	$(BIN)/pytest tests/unit

test-redis: $(STAMP) ## tests of the registry and its scripts, on a real server
	$(BIN)/pytest tests/redis

test-debian-redis: $(STAMP) tools ## the registry, its rights and one fleet on Debian's Redis server, which is older than the wheel's
	PATH=/var/cache/blockjobs-tests/redis/usr/bin:$$PATH $(BIN)/pytest tests/redis tests/unit/test_deploy.py tests/cluster/test_one_machine.py -n 2 --dist loadfile -m "not alone"

test-power: $(STAMP) tools ## power cuts at changes of the disk, on XFS and ext4
	$(BIN)/pytest tests/power -s

test-wheel: $(STAMP) ## the wheel in an environment of its own: its commands, and a demo
	.ci/wheel $(VENV)

test-deploy: $(STAMP) tools ## whole machines, booted by systemd-nspawn, set up by the words of deploy/README.md (as root)
	$(BIN)/pytest tests/deploy -n0

test-chaos: $(STAMP) tools ## everything at once on a site of three hosts: three storms of faults (as root)
	$(BIN)/pytest tests/chaos

chaos: $(STAMP) tools ## more storms (STORMS=50, an hour), what each of them did, and whether the judges see harm (as root)
	$(BIN)/pytest tests/chaos -s --storms $(STORMS)

test-cluster: $(STAMP) tools ## tests of real workers of several hosts
	$(BIN)/pytest tests/cluster -m "not endurance"

test-qmp: $(STAMP) ## the QMP server, by the public client
	$(BIN)/pytest tests/qmp

test-differential: $(STAMP) tools ## QEMU's storage daemon and ours, told the same stories
	$(BIN)/pytest tests/differential

mutants: $(STAMP) tools ## each guard taken away, one at a time: its tests have to fail; a quarter of an hour on two processors
	$(BIN)/python tests/mutants/run.py

campaigns: $(STAMP) tools ## random campaigns, cuts, deaths and 1,000 power cuts at full length (make test has short versions)
	$(BIN)/pytest tests/redis/test_machine.py tests/redis/test_tries_machine.py tests/qmp tests/cluster/test_cuts.py tests/cluster/test_limits.py tests/cluster/test_worker_dies.py tests/cluster/test_coordinator_dies.py tests/cluster/test_finalizer_dies.py tests/cluster/test_two_hundred_hosts.py tests/power --long

endurance: $(STAMP) ## one hour of small runs: memory, file descriptors and Redis keys stay flat
	$(BIN)/pytest tests/cluster/test_endurance.py --long -s

endurance-short: $(STAMP) ## five minutes of it
	$(BIN)/pytest tests/cluster/test_endurance.py -s

check-fast: lint type $(STAMP) ## lint, types, tests of single parts and of the registry, but those that measure times; within 3 minutes on 2 cores
	$(BIN)/pytest tests/unit tests/redis -m "not alone" -n 3 -q

check: lint type test ## lint, type, test: what CI runs

demo: $(STAMP) ## three hosts back up real disk images as one transaction (SIZE=256MiB each)
	$(BIN)/blockjobs demo --size $(SIZE)

bench: $(STAMP) ## the benchmarks, one after the other
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

clean: ## remove all that make has made
	rm -rf $(VENV) demo-data dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find coordinator workers tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
