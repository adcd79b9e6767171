# Everything a developer does. `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
NATSCLI := github.com/nats-io/natscli/nats@v0.5.1

ARGS ?=
# What takes longest begins first, so that nothing long is left at the end. Most tests wait for something most of the time, so that
# more of them run side by side than there are processors.
PKG ?= ./test/e2e ./admin/e2e ./test/... ./clients/... ./internal/reservation/... ./events ./receipt/... ./ledger/... ./...
RUNS ?= 20
SEED ?= 1

# What go builds is larger than what tests leave: it stays on the disk. The tests must not
# see where, because T.TempDir would be there too, with all that their servers sync.
# The race detector of a program that ends sleeps for a second unless it is told not to.
TESTENV = GORACE=atexit_sleep_ms=0 GOTMPDIR=$${TMPDIR:-/tmp} TMPDIR=$$(scripts/tmpdir.sh)
# Without what only debuggers and profilers read (perf too: ARGS=-ldflags=-w), a test binary is linked in less time.
GOTEST = -race -ldflags=-s -exec 'env -u GOTMPDIR'

.PHONY: help
help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

.PHONY: build
build: ## build bin/tidegate
	@go build -ldflags "-X main.version=$$(git describe --tags --always --dirty 2>/dev/null || echo dev)" -o bin/tidegate ./cmd/tidegate

.PHONY: run
run: ## start the whole system with demo traffic, data in ./data (ARGS="--http …")
	@scripts/deps.sh postgres tesseract
	@$(MAKE) --no-print-directory build
	@exec bin/tidegate run --demo --receipts 127.0.0.1:8081 --data data $(ARGS)

.PHONY: nats
nats: ## build bin/nats, the NATS command line client
	@GOBIN=$(CURDIR)/bin GOFLAGS= go install $(NATSCLI)

.PHONY: test
test: ## run every test with the race detector; lint vets (PKG=./gate/... ARGS="-run X")
	@scripts/deps.sh postgres psql cc chromium tesseract node npm python curl
	@$(TESTENV) scripts/test.sh $(GOTEST) -count=1 -vet=off -parallel 4 -timeout 20m $(ARGS) $(PKG)

.PHONY: race
race: ## hunt for data races: the concurrent packages, three times, on 1 and 4 processors
	@scripts/deps.sh postgres psql cc
	@$(TESTENV) scripts/test.sh $(GOTEST) -count=3 -cpu 1,4 -timeout 15m $(ARGS) ./events/... ./consumer/... ./gate/... ./ledger/... ./dev/...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck and mypy find nothing
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "gofmt these:"; echo "$$files"; exit 1; fi
	@go vet ./...
	@go vet -tags acceptance ./test/acceptance/...
	@go vet -tags killpoint ./internal/killpoint
	@go run $(STATICCHECK) -tags acceptance ./...
	@scripts/deps.sh mypy
	@cd clients/python && mypy --no-error-summary

.PHONY: acceptance
acceptance: ## try the built program on the real data in ../shared
	@scripts/deps.sh postgres psql cc chromium tesseract node npm python
	@$(TESTENV) scripts/test.sh $(GOTEST) -count=1 -timeout 20m -tags acceptance $(ARGS) ./test/acceptance/...

.PHONY: chaos
chaos: ## kill gates, consumers, servers and nodes under load, many seeds (SEED=1 RUNS=20)
	@scripts/deps.sh postgres psql cc
	@$(TESTENV) CLUSTER=1 go test $(GOTEST) -count=1 -timeout 20m -run TestFaults -v $(ARGS) ./test/cluster
	@$(TESTENV) CHAOS_SEED=$(SEED) CHAOS_RUNS=$(RUNS) CHAOS_PLANTS=all KILL_RUNS=20 POSTGRES_STOPS=10 CAP_TOKENS=1000000 CAP_CALLERS=1000 CAP_USERS=200 REPEAT=5 go test $(GOTEST) -count=1 -timeout 60m -run 'TestChaos|TestKillNine|TestPostgresStops|TestThousandCallers|TestLimitsUnderConcurrency|TestDefaultBudgetUnderConcurrency|TestCallersWaitForTheirTurn' -v $(ARGS) ./test/e2e/...
	@$(TESTENV) REPEAT=$(RUNS) go test $(GOTEST) -count=1 -timeout 60m $(ARGS) ./ledger ./internal/reservation/...

.PHONY: bench
bench: ## measure against the bars, into bench/results.md (ARGS="ingest" for one of them)
	@scripts/deps.sh postgres redis
	@go run ./bench $(or $(ARGS),--out bench/results.md all)
