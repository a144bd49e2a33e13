# Everything a newcomer types. Each target installs what is missing first; `make setup` alone only does that.

.PHONY: demo test test-gpu check bench docs fuzz setup tools meteor-data mpi
.NOTPARALLEL:

# A cargo that `setup` has just installed is not on the PATH of the shell that called make.
export PATH := $(HOME)/.cargo/bin:$(PATH)

demo: setup
	cargo run -p experiments -- ablation freeze_vit

test: setup meteor-data
	cargo test --workspace

# The tests of accelerators, on the GPU that there is or on a software driver.
test-gpu: setup meteor-data
	scripts/test-gpu.sh

# What a change must pass besides the tests, cheapest first.
check: setup tools
	cargo fmt --all --check
	scripts/rules.sh
	target/tools/bin/mdbook build docs
	target/tools/bin/cargo-deny --locked check bans licenses sources
	@echo "skipped: cargo deny check advisories, whose database is on github.com"
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: setup
	cargo bench --workspace --profile dev

docs: tools
	target/tools/bin/mdbook build docs

# Throws broken files at the parsers for MINUTES, shared among all targets. See docs/testing.md.
MINUTES ?= 60
fuzz: setup tools
	scripts/fuzz.sh $(MINUTES)

# The program for several processes, target/debug/experiments-mpi; see docs/cluster.md.
mpi: setup
	scripts/mpi.sh

setup:
	scripts/setup.sh

# cargo-deny, cargo-fuzz and mdBook, in target/tools.
tools:
	scripts/tools.sh

# METEOR's tables, which this project may not ship. Everything but METEOR works without them.
meteor-data:
	scripts/meteor-data.sh
