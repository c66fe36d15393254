# Everything a fresh Debian 12 machine needs is installed by `make deps`; the
# other targets call it themselves. `make` alone prints this list.
SHELL := /bin/bash
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
GO ?= go
PREFIX ?= /usr/local
DESTDIR ?=

SQLC := $(GO) run github.com/sqlc-dev/sqlc/cmd/sqlc@v1.31.1
BUF := $(GO) run github.com/bufbuild/buf/cmd/buf@v1.73.0
LINT := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

PACKAGES := build-essential pkg-config libdqlite-dev libraft-dev libuv1-dev liblz4-dev libsqlite3-dev \
	lxc-dev liblxc-common lxcfs uidmap dnsmasq-base nftables btrfs-progs e2fsprogs squashfs-tools busybox-static \
	xz-utils zstd bzip2 iproute2 procps ca-certificates acl attr
# Only the tests need these: the stock clients, and what injects faults.
TEST_PACKAGES := lxd-client python3-pylxd strace

RACE_PACKAGES = $$($(GO) list ./state/... ./cluster/... ./rpc/...)

.PHONY: help deps test-deps build install run demo test race bench chaos failover linear scale lint generate image-busybox clean
help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## install the Debian packages and Go modules that building and running need
	@./scripts/deps $(PACKAGES)
	@$(GO) mod download

test-deps: deps ## install what the tests against stock clients need besides
	@./scripts/deps $(TEST_PACKAGES)

build: deps ## build musterd, muster and muster-shim into bin/
	@mkdir -p bin && $(GO) build -o bin/ ./cmd/musterd ./cmd/muster ./cmd/muster-shim

install: build ## install programs, units, completions and manual pages below PREFIX (DESTDIR goes before it)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" ./scripts/install

run: build ## run a daemon in the foreground (MUSTER_DIR chooses its directory)
	$(SUDO) env PATH="$$PWD/bin:$$PATH" bin/musterd

demo: build ## show three members at work on real containers, then leave the machine as it was
	@$(GO) build -o bin/ ./test/demo && $(SUDO) bin/demo

test: test-deps build ## run every test; as root also those with real containers
	$(GO) test -timeout 20m ./...

race: deps ## run the tests of the packages without containers under the race detector
	$(GO) test -race -timeout 15m $(RACE_PACKAGES)

bench: test-deps build ## measure the numbers of the design, beside LXD when Debian's lxd is installed
	$(GO) test -run '^$$' -bench . -benchtime 2s ./state/... ./cluster/... ./rpc/... && $(GO) run ./test/bench

chaos: test-deps build ## kill the daemon at random points, and at every step of its logs, for a long while
	MUSTER_CHAOS_ROUNDS=$${MUSTER_CHAOS_ROUNDS:-50} MUSTER_CHAOS_STEPS=$${MUSTER_CHAOS_STEPS:-0} $(GO) test -count=1 -timeout 120m ./test/chaos -v && \
	MUSTER_CHAOS_STEPS=$${MUSTER_CHAOS_STEPS:-0} $(GO) test -count=1 -timeout 20m ./cluster/coord -run TestAKillAtAnyStep -v

failover: build ## measure how long a cluster takes no writes when a member is killed, paused or cut off
	MUSTER_FAILOVER_ROUNDS=$${MUSTER_FAILOVER_ROUNDS:-20} $(GO) test -count=1 -timeout 120m ./test/failover -v

linear: build ## look for histories that are not linearizable, under faults, for ten minutes
	MUSTER_LINEAR_SECONDS=$${MUSTER_LINEAR_SECONDS:-600} $(GO) test -count=1 -timeout 120m ./test/linear -v

scale: build ## measure a cluster of 25 members on this machine: joining, resting, losing its leader
	MUSTER_SCALE=$${MUSTER_SCALE:-25} $(GO) test -count=1 -timeout 30m ./test/scale -v

lint: deps ## gofmt, go vet, golangci-lint, the shape of the house
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./... && $(GO) mod tidy -diff && $(LINT) run ./... && $(GO) test -count=1 ./test/arch

generate: deps ## regenerate what is generated and checked in
	cd state/store && $(SQLC) generate
	cd rpc/peer/proto && $(BUF) generate
	$(GO) test ./rpc/rest -run OpenAPI -update

image-busybox: build ## make bin/busybox.tar.xz, a small real image
	bin/muster image build busybox --output bin/busybox.tar.xz

clean: ## remove what was built
	rm -rf bin
