# The two commands of the README are `make demo` and `make test`; they need Go and nothing else.
SHELL := /bin/bash
GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
# The agent stays small without gRPC's tracing pages; the tag is the same for all, so that they share
# the build cache.
TAGS  := grpcnotrace
BUILD := $(GO) build -tags $(TAGS) -trimpath -ldflags "-s -w"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: build
build: ## build the three programs into bin/
	@mkdir -p bin
	$(BUILD) -o bin/elsewhere ./cmd/elsewhere
	CGO_ENABLED=0 $(BUILD) -o bin/elsewhere-agent ./cmd/agent # without the C library it takes 1 MiB less
	$(BUILD) -o bin/elsewhere-coordinator ./cmd/coordinator

.PHONY: demo
demo: ## show a small network at work, on this machine alone
	@mkdir -p bin
	@echo "building (once) ..." >&2
	@$(BUILD) -o bin/elsewhere ./cmd/elsewhere
	@bin/elsewhere demo

.PHONY: test
test: ## run the tests that need neither root nor tools; RACE=1 with the race detector
	$(GO) test -tags $(TAGS) $(if $(RACE),-race) $(TESTFLAGS) $$($(GO) list ./... | grep -vE '/test/(lab|chaos)$$')

.PHONY: fuzz
FUZZTIME ?= 30s
fuzz: ## run every fuzzer for FUZZTIME (30s)
	./.ci/fuzz $(FUZZTIME) $(TAGS)

.PHONY: generate
generate: ## make the Go code of the contract
	$(TOOL) buf generate

.PHONY: check
check: ## what CI checks: formatting, contract, generated code, linters
	./.ci/check

.PHONY: lab
lab: build ## run the whole-system tests in network namespaces (root)
	@mkdir -p bin
	$(GO) build -modfile=tools/go.mod -o bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
	$(GO) test -tags $(TAGS) -count=1 -timeout 30m -v $(TESTFLAGS) ./test/lab

.PHONY: lab-random
SEED ?= 1
N    ?= 200
lab-random: build ## draw N (200) combinations of faults from SEED (1) and compare; ONLY=INDEX for one of them (root)
	$(GO) test -tags $(TAGS) -count=1 -timeout 60m -v $(TESTFLAGS) -run '^TestRandom$$' ./test/lab -args \
	  -seed $(SEED) -random $(N) $(if $(ONLY),-only $(ONLY))

.PHONY: lab-loss
lab-loss: build ## measure healthy targets N (200) times while one packet of twenty is lost (root)
	$(GO) test -tags $(TAGS) -count=1 -timeout 60m -v $(TESTFLAGS) -run '^TestLab$$/^HealthyUnderLoss$$' ./test/lab -args -loss $(N)

.PHONY: chaos
PROFILE  ?= long
DURATION ?= 30m
chaos: ## hurt a whole network, of one coordinator and of three, for DURATION (30m), as SEED (1) says, HERD (1,000) agents coming at once, and judge its history (root)
	@mkdir -p bin/chaos
	$(GO) build -tags "$(TAGS) chaos" -o bin/chaos/elsewhere-agent ./cmd/agent
	$(GO) build -tags "$(TAGS) chaos" -o bin/chaos/elsewhere-coordinator ./cmd/coordinator
	$(GO) build -tags $(TAGS) -o bin/chaos/elsewhere ./cmd/elsewhere
	$(GO) build -tags $(TAGS) -o bin/chaos/hostile-agent ./test/hostile/agent
	$(GO) build -tags $(TAGS) -o bin/chaos/hostile-coordinator ./test/hostile/coordinator
	@test/chaos/build-previous
	$(GO) test -tags $(TAGS) -count=1 -timeout 0 -v $(TESTFLAGS) ./test/chaos -args \
	  -seed $(SEED) -profile $(PROFILE) -duration $(DURATION) $(if $(INSECURE),-insecure) $(if $(HERD),-herd $(HERD)) $(if $(ONLY),-only "$(ONLY)")

.PHONY: bench
bench: build ## measure latency, throughput, memory and size
	./bench/run

.PHONY: scale
scale: ## fold and judge the log of up to 100,000 agents' traffic, without sockets (docs/scale.md); SCALE="-agents 1000,9000"
	$(GO) build -tags $(TAGS) -o bin/scale ./bench/scale
	bin/scale $(SCALE)
