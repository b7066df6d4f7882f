# Everything from a fresh Debian: `make demo`, `make test`. Needs root only where apt has to install something.
#   make demo  ARGS="--json --keep"     make bench ARGS="latency --block-time 1 --tasks 20 --json"
#   make test  ARGS="-k lane"           make clean   (ends demo and stack, removes them and what was built)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-pools test-all test-geth test-gvisor test-strict test-userns test-faults test-chaos test-cluster test-sharded test-crowd test-sms test-enclave-images test-grafana test-alerts image-test check check-types check-style bench clean

UV_VERSION := 0.13.9
PYTHON ?= python3
SLUICE := .venv/bin/sluice
RUN := .venv/bin
READY := .venv/.ready
# Many integration tests wait for blocks or for processes: four at a time keep two cores busy. Each more costs its start.
JOBS ?= 4

# The interpreter is the machine's: downloads come from package indexes only.
export UV_PYTHON_DOWNLOADS := never
# Every process would compile all of Sluice at its start (half a second of a scheduler's), and each of the test
# processes every test (6 s): compiled files are kept in __pycache__ instead, which git ignores and `make clean` removes.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -3

demo: $(READY)
	@$(SLUICE) demo $(ARGS)

# Whole pools: their programs and servers are started, killed, lost and restored, outages last longer than deadlines,
# strangers are among the machines, every page is done as printed, browsers look. Over half of all CPU seconds, for one test
# in fifteen: each waits long, or starts whole programs again and again. (Of whole pools `make test` has the main job by the
# stock SDK, the demo, and one fault of each side.)
POOL_RUNS := $(addprefix tests/integration/,stack workers/restarts pipeline/trouble pipeline/money/test_ledger.py \
	$(addprefix pool/,commands shown trouble test_broker_attacks_beside_work.py test_documents.py test_votes.py \
	test_machines_come_and_go.py test_other_language.py test_sessions.py test_strangers.py) \
	pipeline/orders pipeline/store/test_deals.py \
	$(addprefix sms/,test_enclave_machine.py test_enclave_pool.py test_unserved_tags.py) \
	test_init.py api/admin/test_prometheus.py)

test: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq docker ipfs
	@$(RUN)/python -m pytest -p no:cacheprovider -n $(JOBS) --dist loadfile $(addprefix --ignore=,$(POOL_RUNS)) $(ARGS)

# What `make test` leaves out of the tests that must hold before a change lands (.ci/run has both).
test-pools: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq docker ipfs
	@$(RUN)/python -m tests.browser
	@$(RUN)/python -m pytest -p no:cacheprovider -n $(JOBS) --dist loadfile $(POOL_RUNS) $(ARGS)

# All tests but those with a target of their own below.
test-all:
	@status=0; for target in test test-pools; do $(MAKE) --no-print-directory $$target || status=1; done; exit $$status

# A second opinion to anvil: the lane on geth, and what steps that share a block assume of it. geth takes five minutes to
# build the first time. A whole pool on it: `make bench ARGS="latency --state pending --node geth"`.
test-geth: $(READY)
	@$(RUN)/python -m pytest -p no:cacheprovider $(addprefix tests/integration/,chain/geth_heads.py lane/geth_lane.py lane/geth_same_block.py) $(ARGS)

# Apps under gVisor, the hostile ones too: its runsc takes five minutes to build the first time.
test-gvisor: $(READY)
	@$(RUN)/python -m ops.stack.gvisor
	@$(SLUICE) stack up docker
	@$(RUN)/python -m pytest -p no:cacheprovider tests/integration/workers/isolated_runs.py $(ARGS)

# All hostile apps on a machine with SLUICE_SANDBOX=strict, of which `make test` has nine: a minute.
test-strict: $(READY)
	@$(SLUICE) stack up docker
	@$(RUN)/python -m pytest -p no:cacheprovider tests/integration/workers/strict_runs.py $(ARGS)

# Apps, the hostile ones too, on an engine with user namespaces (userns-remap), which is one of its own: a minute. Docker
# adds a user `dockremap` to this machine for it.
test-userns: $(READY)
	@$(RUN)/python -m pytest -p no:cacheprovider tests/integration/workers/user_namespace_runs.py $(ARGS)

# Stock SDKs 8 and 9 against a secret service, which is a process of its own; 9 against a whole pool that does 50
# confidential tasks with it, and a bulk; the demo's confidential deal, and docs/quickstart/confidential.md as printed;
# containers of SGX enclaves; the service, and the scheduler, killed at each step of a task: four minutes of CPU seconds,
# most of them Node.js's and the tasks'.
test-sms: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq docker ipfs
	@$(RUN)/python -m pytest -p no:cacheprovider $(addprefix tests/integration/sms/,stock_sdks.py stock_sdk_pool.py demo_enclave.py sgx_images.py killed_service.py killed_scheduler.py) $(ARGS)

# Our images of pre- and post-compute (enclaves/): formatted, vetted, tested, twice the same, and held against openssl and
# Python. Each build takes half a minute the first time.
test-enclave-images: $(READY)
	@$(SLUICE) stack up docker
	@$(RUN)/python -m pytest -p no:cacheprovider tests/integration/sms/enclave_images.py tests/integration/sms/others_images.py $(ARGS)

# Each fault of `bench faults` by itself in the middle of a bag of tasks, those that `make test` leaves out, and a pool that
# has steps share a block (SLUICE_STATE=pending): 5 minutes. `make test` and `make test-pools` have one fault of each
# kind, and the lane's half of a shared block.
test-faults: $(READY)
	@$(RUN)/python -m pytest -p no:cacheprovider $(addprefix tests/integration/pool/trouble/,each_fault.py same_block.py) $(ARGS)

# A fault every 5 s for 12 tasks of mixed trust, with strangers among the machines: 4 minutes, the short form of
# `make bench ARGS="chaos --tasks 60"`. Kills and stops the stack's servers, so nothing else may use it meanwhile.
test-chaos: $(READY)
	@$(RUN)/python -m bench chaos --tasks 12 --every 5 $(ARGS)

# Each of three RabbitMQ nodes, three MongoDB members and two scheduler hosts is killed, and cut off by iptables (root), in
# the middle of tasks of mixed trust: 20 minutes. Shorter: `make test-cluster ARGS="--tasks 20 --only mongodb-1"`.
test-cluster: $(READY)
	@$(RUN)/python -m bench cluster $(ARGS)

# The store's tests on a sharded MongoDB, which shards each query asks, and a bag of tasks in a pool over it: 5 minutes.
# Its stack is one of its own kind: the next `make test` starts the single server again.
SHARDED_RUNS := $(addprefix tests/integration/,pipeline/sharded/routes.py pipeline/sharded/whole_bag.py pipeline/store lane/test_store_mongo.py sms/test_store.py)

test-sharded: export SLUICE_STACK_SHARDED := true
test-sharded: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq
	@$(RUN)/python -m pytest -p no:cacheprovider $(SHARDED_RUNS) $(ARGS)

# 2,000 sign-ins of fresh wallets and 50,000 pings of them, then an honest deal: 4 minutes. A sign-in that is
# refused since too many wait (503) is asked for again; any other 5xx is an error.
test-crowd: $(READY)
	@$(RUN)/python -m bench crowd $(ARGS)

# The dashboards by Grafana's published schema, strictly, in a Go program that takes a minute and a half to build the first time.
test-grafana: $(READY)
	@$(RUN)/python -m pytest -p no:cacheprovider tests/dashboards/schema_runs.py $(ARGS)

# Faults in which the real Prometheus fires alerts, beside those that `make test` has: a minute.
ALERT_RUNS := $(addprefix tests/integration/,pipeline/trouble/alerts_fire.py api/results/alert_fires.py)

test-alerts: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq ipfs
	@$(RUN)/python -m pytest -p no:cacheprovider $(ALERT_RUNS) $(ARGS)

# In this order: the last one stops what the others use.
IMAGE_RUNS := $(addprefix tests/image/,compose_runs.py dev_runs.py image_runs.py systemd_runs.py stop_runs.py)

# The image, the compose file by docker compose, its scheduler alone, `docker run` and the systemd unit of docs/quickstart/worker.md, as printed.
# The base image and stand-ins for the servers' images are made of Debian's packages and programs that are here anyway
# (5 minutes the first time), so that no image registry is needed; docker compose is built once (4 minutes).
image-test: $(READY)
	@$(SLUICE) stack up mongodb rabbitmq docker ipfs
	@$(RUN)/python -m tests.image.composed
	@$(RUN)/python -m pytest -p no:cacheprovider $(IMAGE_RUNS) $(ARGS)

# Types take longest: the rest is looked at beside them.
check: $(READY)
	@$(MAKE) --no-print-directory -j2 -Otarget check-types check-style

check-types:
	@$(RUN)/mypy

check-style:
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/lint-imports

# `all` takes ten minutes and writes bench/results/<time>.json; `compare bench/results/baseline.json NEW` fails if a ratio
# lost a fifth. `.ci/nightly` runs both, `.ci/run` neither. To accept new ratios, copy NEW over it.
bench: $(READY)
	@$(RUN)/python -m bench $(ARGS)

# .sluice is also where a scheduler or a worker machine that runs in this clone keeps its keys and its journal (SLUICE_HOME
# unless set): without them, votes that are cast cannot be revealed. So only what a target of this file has made goes.
clean:
	@if [ -x $(SLUICE) ] && ! { $(SLUICE) demo --stop && $(SLUICE) stack down --wipe; }; then \
		echo 'Nothing was removed, since what runs could not be stopped (see above). Without .venv it is not tried.' >&2; exit 1; fi
	@rm -rf .sluice/demo .sluice/stack .sluice/stack.json .sluice/stack.env .sluice/bench
	@rm -rf .venv node_modules tests/sdk/node_modules tests/other_worker/node_modules tests/image/compose/mongodb/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name .sluice -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@for kept in .sluice/*; do [ ! -e "$$kept" ] || echo "kept: $$kept"; done

# The environment as uv.lock has it; made again when the lock changes.
$(READY): uv.lock pyproject.toml ops/environment.sh
	@PYTHON='$(PYTHON)' UV_WANTED='$(UV_VERSION)' ops/environment.sh
	@touch $@
