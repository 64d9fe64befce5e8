# `make help` says what there is. The work is done by Go programs in e2e/ and tools/: targets only call them.

.DEFAULT_GOAL := help
NODES ?= 3
CNI   ?= kith
STACK ?= ipv4
PROXY ?= nftables
NAME  ?= lab
STAGES ?=
BENCH ?= .
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)

LAB := go -C e2e run ./cmd/lab -name $(NAME) -nodes $(NODES) -cni $(CNI) -stack $(STACK) -proxy $(PROXY)

.PHONY: help demo test lint bench cluster-up cluster-down kind kind-down conformance image generate build go root

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: go root ## a three-node cluster comes up, and policies decide who talks to whom (KEEP=1 leaves it up)
	@go -C e2e run ./cmd/demo

test: go ## everything; some of them: make test STAGES="lint vuln unit install mistakes kernel guest cluster kind"
	@go -C tools run ./check $(STAGES)

lint: go ## gofmt, vet, staticcheck, govulncheck
	@go -C tools run ./check lint vuln

bench: go root ## the benchmarks, in the kernel too (BENCH=regexp)
	@go test -run '^$$' -bench '$(BENCH)' -benchmem ./identity/... ./overlay/... ./policy/... ./cni/...
	@go test -run '^$$' -bench '$(BENCH)' -tags kernel -p 1 ./overlay/wireguard/... ./policy/nft/... ./cmd/kith-agent
	@go -C e2e test -run '^$$' -bench '$(BENCH)' -tags e2e -timeout 60m ./bench/...

cluster-up: go root ## a cluster in namespaces of this machine (NODES=3 CNI=kith|none STACK=ipv4|dual PROXY=nftables|iptables NAME=lab)
	@$(LAB) up

cluster-down: go root ## takes it down
	@$(LAB) down

kind: go root ## a kind cluster with Kith
	@go -C e2e run ./cmd/kind up

kind-down: go root ## takes it down
	@go -C e2e run ./cmd/kind down

conformance: go root ## upstream's tests of ClusterNetworkPolicy, and its report: build/conformance.yaml
	@mkdir -p build
	@KITH_CONFORMANCE_REPORT=$(CURDIR)/build/conformance.yaml VERSION=$(VERSION) go -C e2e test -tags e2e -count=1 -v -timeout 40m -run '^TestClusterNetworkPolicyUpstream$$' .

image: go ## build/kith-image.tar, without a container engine
	@go -C e2e run ./cmd/image

build: go ## the programs, in bin/
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

generate: go ## deploy/kith.yaml from the chart
	@go -C deploy/test test -count=1 -run TestManifestIsTheChart . -update

go:
	@command -v go >/dev/null || { echo "Kith needs Go 1.26 or newer in the PATH: https://go.dev/dl/" >&2; exit 1; }

root:
	@test "$$(id -u)" = 0 || { echo "This target makes network namespaces: run it as root." >&2; exit 1; }
