# `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# SwiftPM leaves a folder in TMPDIR for each build: not in /tmp.
export TMPDIR := $(CURDIR)/.build/tmp
$(shell mkdir -p $(TMPDIR))

# One configuration for the product and its tests: dependencies are built once.
FLAGS := -c release -Xswiftc -enable-testing --explicit-target-dependency-import-check error

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install the Debian packages that are missing (as root)
	@scripts/setup

build: ## build the product and the workloads
	swift build $(FLAGS) --product apus
	@$(MAKE) --no-print-directory -C Workloads

# By product: a plain --build-tests would build protobuf's own compiler too, which takes ten times as long.
tests: build
	swift build $(FLAGS) --product apusPackageTests

test: setup tests ## build and run every test (as root: without it most are skipped)
	@set -o pipefail; swift test $(FLAGS) --skip-build --no-parallel 2>&1 | tee .build/tests.log || \
	    { echo; echo 'What failed:'; grep -A 12 -E ' recorded an issue ' .build/tests.log; exit 1; }

demo: setup build ## move a live redis between two edge hosts by cold, pre-copy and MiGrror (as root)
	.build/release/apus doctor
	.build/release/apus demo $(DEMO)

evaluate: setup build ## measure by Plans/quick.yaml (4 minutes) and write the report; PLAN=... (as root)
	.build/release/apus evaluate run $(PLAN) --results $(RESULTS)
	.build/release/apus evaluate report $(RESULTS)

claims: setup build ## compute what docs/results claims again from the committed data
	.build/release/apus evaluate claims docs/results/claims.md

criu: ## get a CRIU for the technique criu-cold into .build/criu, without installing anything (as root)
	@scripts/criu

PLAN ?= Plans/quick.yaml
RESULTS ?= results-$(basename $(notdir $(PLAN))).sqlite

# Moves for each of the three techniques: 2,001 together.
MOVES ?= 667

torture: setup tests ## move the torture program 2,000 times, its memory compared after each (as root)
	APUS_TORTURE_MOVES=$(MOVES) swift test $(FLAGS) --skip-build --no-parallel --filter TortureTests/tortureMovesExactly

bench: setup build ## measure what migrations cost; BENCH="--quick", "--case NAME"
	.build/release/apus bench $(BENCH)

faults: setup tests ## kill agents and guards at every step of every technique (as root)
	APUS_FAULTS=all swift test $(FLAGS) --skip-build --no-parallel --filter FaultTests

# Programs of random shapes, each moved three times: SHAPES=500 takes some 40 minutes. `make test` gives them 4.
SHAPES ?= 500

shapes: setup tests ## move 500 programs of random shapes; APUS_SHAPES_SEED repeats a run (as root)
	APUS_SHAPES_COUNT=$(SHAPES) swift test $(FLAGS) --skip-build --no-parallel --filter ShapeTests

# Seconds for each of the three targets, and the seed of their first inputs.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1

fuzz: setup ## send what a hostile host could, to decoders and both sides of sessions, FUZZ_SECONDS=60 each (as root)
	@scripts/fuzz build
	@echo 'seed $(FUZZ_SEED), $(FUZZ_SECONDS) s for each target'
	@scripts/fuzz decoders -seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) $(FUZZ)
	@scripts/fuzz sessions -seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) $(FUZZ)
	@scripts/fuzz sources -seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) $(FUZZ)

lint: ## check format and style
	scripts/lint --strict

format: ## lay out the Swift sources
	scripts/lint --format

clean: ## remove what was built
	rm -rf .build demo-report.json results-*

protos: ## regenerate the committed protobuf code (needs protoc and protoc-gen-swift)
	protoc --proto_path=Protos --swift_opt=Visibility=Public --swift_out=Sources/Engine/Generated ProcessImage.proto
	protoc --proto_path=Protos --swift_opt=Visibility=Public --swift_opt=ProtoPathModuleMappings=Protos/modules.asciipb \
	    --swift_out=Sources/Migration/Generated Session.proto

.PHONY: help setup build tests test demo evaluate criu torture bench lint format clean faults fuzz shapes protos
