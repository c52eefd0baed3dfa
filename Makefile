# Everything that is done to this repository is a target here. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

IMAGE ?= lethe:dev
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
N ?= 1000
# Tenants of bench-scale; 0 is a tenth of its bots, and at most 100.
TENANTS ?= 0
ROWS ?= 1000000
UNKNOWN ?= 20000000
# The engine that swept one dataset after the other: bench-sweep measures it in the same run.
BEFORE ?= a91d60e
BOTS ?= 30
PODS ?= 8
UPDATES ?= 10000
VICTIMS ?= 20
TIME ?= 30s

tool = $$(hack/tools/build.sh $(1))
# kube-apiserver, etcd and kubectl, for tests without a node. A folder that you have already is taken instead.
assets = export KUBEBUILDER_ASSETS="$${KUBEBUILDER_ASSETS:-$$(hack/cluster/cluster.sh assets)}"
# Packages whose tests start no server: what can be run while thinking.
unit_packages = $$(go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... \
	| grep -Ev 'lethe/test/(env|pg|walls|chart|e2e|bench|alerts)|controller-runtime/pkg/envtest|lethe/hack/demo ' | cut -d' ' -f1)

##@ Daily

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the programs and kubectl-lethe into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags "-X github.com/lethe-dev/lethe/internal/version.version=$(VERSION)" \
		-o bin/ ./cmd/...
	CGO_ENABLED=0 go build -trimpath -ldflags "-X github.com/lethe-dev/lethe/internal/version.version=$(VERSION)" \
		-o bin/manager .
	@install -m 0755 cmd/kubectl-lethe/kubectl_complete-lethe bin/

.PHONY: fmt
fmt: ## Format the code
	@gofmt -w $$(git ls-files '*.go')

.PHONY: lint
lint: ## Lint: the code, the API's conventions, the cluster tool, the programs of the tests
	@linter=$(call tool,golangci-lint); \
	"$$linter" run ./... && \
	"$$linter" run --config .golangci-kal.yml ./api/... && \
	for module in hack/cluster test/programs; do (cd "$$module" && GOFLAGS= "$$linter" run --config ../../.golangci-tools.yml ./...) || exit 1; done

.PHONY: vuln
vuln: ## Known holes in what we call of other modules, and of Go (govulncheck; asks vuln.go.dev)
	@hack/vuln.sh "$(call tool,govulncheck)"

.PHONY: test-unit
test-unit: ## Tests that start no server (under a minute)
	@go test $(unit_packages)

.PHONY: cover
cover: ## Coverage of the tests that start no server: a line a package, the total, and dist/cover.out for go tool cover
	@mkdir -p dist
	@go test -coverprofile=dist/cover.out -coverpkg=./api/...,./cmd/...,./controllers/...,./internal/...,. $(unit_packages) >dist/cover.log || { cat dist/cover.log; exit 1; }
	@go run ./hack/cover dist/cover.out

##@ Everything

.PHONY: test
test: prepare ## All tests: unit, a real API server, a real PostgreSQL, the whole path on a real node (as root)
	@$(assets); hack/test.sh

.PHONY: fuzz
fuzz: ## Each fuzz target for TIME (TIME=30s); their corpora run in every test
	@for file in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$$file"); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime "$(TIME)" "./$$(dirname "$$file")"; \
		done; \
	done

# What is said for a cluster of the user's counts only when it is said to make: these names may be in anybody's environment for other programs.
said = $(if $(findstring command line,$(origin $(1))),$($(1)))
option = $(if $(call said,$(1)), --$(2) "$($(1))")
theirs = $(call option,CLUSTER,cluster)$(call option,CONTEXT,context)$(call option,YES,yes)
theirs_up = $(theirs)$(call option,IMAGE,image)$(call option,LOAD,load)$(call option,POSTGRES,postgres)$(call option,STORAGE_CLASS,storage-class)$(call \
	option,VALUES,values)

.PHONY: test-e2e
test-e2e: $(if $(call said,CLUSTER),,prepare) ## Only the end-to-end run on a real node (as root), or the parts that need no node on your cluster (CLUSTER=current)
ifeq ($(call said,CLUSTER),)
	@$(assets); go test -count=1 -timeout 40m -p 1 -v ./test/e2e/...
else
	@echo "The end-to-end tests on the cluster of your kubeconfig: it looks, says all that it would touch and asks; nothing is touched before you agree."
	@echo "All of it is removed at the end. The first run builds all programs: up to 10 minutes on two processors. Later runs take about 5."
	@go run ./hack/demo test$(theirs_up)
endif

.PHONY: prepare
prepare: ## Install PostgreSQL and a C compiler (for the race detector) where they are missing, unpack Prometheus, build kube-apiserver and etcd
	@hack/postgres.sh
	@hack/prometheus.sh >/dev/null
	@hack/compiler.sh
	@hack/cluster/cluster.sh assets >/dev/null

.PHONY: verify
verify: ## Regenerate everything, and fail on any difference or untracked file
	@$(MAKE) generate manifests reference fmt
	@for module in . hack/cluster test/programs $$(ls -d hack/tools/*/); do go -C "$$module" mod tidy -diff; done
	@if [ -n "$$(git status --porcelain)" ]; then \
		git status --short; git --no-pager diff --stat; \
		echo "generated files, formatting or the tree differ from what is committed" >&2; exit 1; fi

.PHONY: demo
demo: ## The whole thing on this machine (as root), or on your cluster (CLUSTER=current): two tenants, a bot, a database that forgets
ifeq ($(call said,CLUSTER),)
	@echo "A cluster of one node on this machine, Lethe by its chart, a bot that answers, a database that forgets; make demo-down removes all of it."
	@echo "The first run builds Kubernetes and all programs from source: up to 20 minutes on two processors. Later runs take about 3."
else
	@echo "The demo on the cluster of your kubeconfig: it looks, says all that it would touch and asks; nothing is touched before you agree."
	@echo "make demo-down CLUSTER=current removes all of it. The first run builds all programs: up to 10 minutes on two processors. Later runs take about 3."
endif
	@go run ./hack/demo up$(theirs_up)

.PHONY: demo-down
demo-down: ## Remove every trace of the demo (CLUSTER=current: from your cluster)
	@go run ./hack/demo down$(theirs)

.PHONY: bench-scale
bench-scale: ## N bots of TENANTS tenants on simulated nodes, against a bare client in the same run (N=1000; TENANTS: a tenth of N, at most 100)
	@$(assets); go run ./test/bench/scale -n $(N) -tenants $(TENANTS)

.PHONY: bench-rotate
bench-rotate: ## Every layer of keys of N bots gets new ones, with two keyservers and callers meanwhile (N=1000)
	@$(assets); go run ./test/bench/rotate -n $(N)

.PHONY: bench-sweep
bench-sweep: prepare ## A sweep of ROWS rows against one raw DELETE in the same run, and what is hard to sweep (ROWS=1000000, UNKNOWN=20000000)
	@go run ./test/bench/sweep -rows $(ROWS) -unknown $(UNKNOWN) -before "$(BEFORE)"

.PHONY: bench-tenants
bench-tenants: ## A shared store of N tenants, a tenth of them with a window of their own: its plan, its sweep's leases, a customer that comes (N=10000)
	@$(assets); go run ./test/bench/tenants -n $(or $(call said,N),10000)

.PHONY: bench-attack
bench-attack: ## One tenant's worst, against VICTIMS others on a real node (as root; PODS=8, UPDATES=10000, VICTIMS=20)
	@go run ./test/bench/attack -pods $(PODS) -updates $(UPDATES) -victims $(VICTIMS)

.PHONY: bench-upgrade
bench-upgrade: ## What a new Lethe, and a change that must restart them, does to BOTS bots on a real node (as root; BOTS=30)
	@go run ./test/bench/upgrade -bots $(BOTS)

##@ Generated and packed

.PHONY: generate
generate: ## Deep copies of the API's types
	@"$(call tool,controller-gen)" object paths=./api/...

.PHONY: manifests
manifests: ## CRDs, roles, their copies in the chart, the references of the API and of its reasons
	@"$(call tool,controller-gen)" crd:generateEmbeddedObjectMeta=false paths=./api/... output:crd:dir=config/crd/bases
	@"$(call tool,controller-gen)" rbac:roleName=lethe-manager paths=./controllers/... paths=./internal/reconcile/... output:rbac:dir=config/rbac
	@go run ./hack/chart config charts/lethe
	@go run ./hack/reference config/crd/bases docs/reference/api.md api/v1alpha1/reasons.go docs/reference/reasons.md

.PHONY: reference
reference: ## docs/reference/cli.md, out of kubectl-lethe (the API's comes with manifests)
	@go run ./cmd/kubectl-lethe reference > docs/reference/cli.md.new
	@mv docs/reference/cli.md.new docs/reference/cli.md

.PHONY: image
image: ## The image as dist/lethe.tar, without a container engine (IMAGE=lethe:dev)
	@go run ./hack/image --name "$(IMAGE)" --version "$(VERSION)" -o dist/lethe.tar

.PHONY: image-push
image-push: image ## Push dist/lethe.tar to the registry that IMAGE names
	@"$(call tool,crane)" push dist/lethe.tar "$(IMAGE)"

.PHONY: assets
assets: ## Build kube-apiserver, etcd and kubectl, and print their folder
	@hack/cluster/cluster.sh assets
