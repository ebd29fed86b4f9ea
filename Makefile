# `make` alone lists the targets.
SHELL := /bin/bash
BUILD := swift build -c release -Xswiftc -enable-testing

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build the product and the workloads
	$(BUILD)
	@$(MAKE) --no-print-directory -C Workloads

setup: ## install the Debian packages that are missing
	scripts/setup

demo: setup build ## move a live redis between two edge hosts by cold, pre-copy and MiGrror
	.build/release/apus doctor
	.build/release/apus demo $(DEMO)

bench: setup build ## measure what migrations cost; BENCH="--quick", "--case NAME"
	.build/release/apus bench $(BENCH)

protos: ## regenerate the committed protobuf code (needs protoc and protoc-gen-swift)
	protoc --proto_path=Protos --swift_opt=Visibility=Public --swift_out=Sources/Engine/Generated ProcessImage.proto
	protoc --proto_path=Protos --swift_opt=Visibility=Public --swift_opt=ProtoPathModuleMappings=Protos/modules.asciipb \
	    --swift_out=Sources/Migration/Generated Session.proto

.PHONY: help setup build demo bench protos
