# Everything a newcomer types. Each target installs what is missing first; `make setup` alone only does that.

.PHONY: demo test check bench docs setup meteor-data

# A cargo that `setup` has just installed is not on the PATH of the shell that called make.
export PATH := $(HOME)/.cargo/bin:$(PATH)

demo: setup
	cargo run -p experiments -- ablation freeze_vit

test: setup meteor-data
	cargo test --workspace

# What a change must pass before it is committed.
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: setup
	cargo bench --workspace --profile dev

docs:
	mdbook build docs

setup:
	scripts/setup.sh

# METEOR's tables, which are not ours to ship. Everything but METEOR works without them.
meteor-data:
	scripts/meteor-data.sh
