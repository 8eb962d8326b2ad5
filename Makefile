# Everything a person runs. The work is done by the scripts in e2e/; `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PROFILE ?= ci
TOOLS := .cache/tools/bin

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /  make \1\t/' | expand -t 20

.PHONY: demo demo-down
demo: ## a local Kubernetes of three nodes, Roadstead in it, and PostgreSQL on a volume that moves between nodes
	@e2e/demo.sh
demo-down: ## removes what `make demo` started (what was built stays)
	@e2e/cluster/cluster down

.PHONY: test e2e bench fuzz
test: ## every check and every test; ends with a summary
	@e2e/test.sh
e2e: ## the cluster and virtual machine scenarios alone; LIST=1 lists them, ONLY=NAME or ONLY=NAME/CHECK runs one
	@e2e/run $(if $(LIST),--list) $(ONLY)
fuzz: export TIME ?= 600
fuzz: ## fuzzes every codec and whole connections, and simulates both ends, TIME seconds each (600)
	@e2e/fuzz.sh
	FIRST=$$(date +%s)0000 SEEDS=$$((TIME * 60)) cargo test --locked --profile $(PROFILE) --package roadstead-sim runs_hold
bench: ## measures speed, CPU and memory and writes docs/benchmarks.md
	@e2e/run speed roce-cost
	cargo build --locked --release --package roadsteadd --package roadstead
	@e2e/bench.py --cluster-json e2e/.out/speed.json --roce-json e2e/.out/roce-cost.json

.PHONY: build image
build: ## the four programs, into target/$(PROFILE)
	cargo build --locked --profile $(PROFILE) --workspace --bins
image: build ## the container image, as a tar file
	@e2e/images.sh roadstead

.PHONY: fmt lint deny unit chart
fmt: ## formatting
	cargo fmt --all --check
lint: ## clippy and shellcheck, warnings are errors
	cargo clippy --locked --workspace --all-targets --profile $(PROFILE) -- -D warnings
	shellcheck -x $$(e2e/shell-files)
deny: ## licences, bans and duplicates of the dependencies
	@e2e/deny.sh
unit: ## unit and property tests
	cargo test --locked --profile $(PROFILE) --workspace
chart: ## lints the Helm chart
	@e2e/chart.sh
