# The only door: every command a person or CI runs is a target here. `make` alone lists them.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
CONNECTIONS ?= 2000
PORTS ?= af_packet
SEEDS ?= 1000
SCALE ?= 64 250 250
T ?= 60
SEED ?=
export CONNECTIONS PORTS T SEED

# What a fresh Debian lacks, besides Rust. The first line is what building needs, the second what running the
# whole-system tests and the demo needs.
PACKAGES := build-essential pkg-config clang libclang-dev libdpdk-dev libbpf-dev \
            dpdk valgrind iproute2 ethtool nftables curl iperf3 iputils-ping debootstrap socat bird2 nginx-light tcpdump

# Rooms that need DPDK, but for the bench.
GUARDED := -p vipa-dpdk-sys -p vipa-dpdk -p vipa-router
# What `build` builds; the bench, which only `make bench` needs, takes as long as all the others' last steps.
BUILT := --workspace --exclude vipa-perf
# dpdk-testpmd, the reference that `make bench` measures us against.
BENCH_PACKAGES := dpdk-dev

.PHONY: help
help: ## List the targets
	@echo "Vipa: a VIPA outlives its router, and no connection breaks. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: deps
deps: ## Install the Debian packages that are missing (needs root only when some are)
	@command -v $(CARGO) >/dev/null || { echo "make deps: Rust is missing: install it from https://rustup.rs, then try again" >&2; exit 1; }
	@missing=; for package in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "make deps: run it as root once, to install:$$missing" >&2; exit 1; fi; \
	echo "Installing:$$missing"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$missing >/dev/null

.PHONY: build
build: deps ## Build every program but the bench in release mode
	$(CARGO) build --release $(BUILT) --bins

.PHONY: check
check: format lint unit ## Format, lints, tidy and unit tests: no root, no DPDK

.PHONY: format
format: ## Check the format of the sources
	$(CARGO) fmt --all --check

.PHONY: lint
lint: ## Clippy on every room that builds without DPDK
	$(CARGO) clippy --all-targets -- -D warnings

.PHONY: unit
unit: ## Tests that need neither root nor DPDK, the plan of the house (tidy) among them
	$(CARGO) test -q

# Cargo.toml's rust-version. `lint` refuses what the standard library has only since a later release, too (clippy::incompatible_msrv).
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
.PHONY: msrv
msrv: deps ## Compile everything with the oldest Rust that is supported (Cargo.toml's rust-version)
	@rustup run $(MSRV) rustc --version 2>/dev/null || { echo "make msrv: Rust $(MSRV) is missing. Run: rustup toolchain install $(MSRV) --profile minimal" >&2; exit 1; }
	rustup run $(MSRV) cargo check --locked --workspace --all-targets --target-dir $(TARGET)/msrv

# Versions are fixed, so that a new release of a tool changes no verdict. Building both takes minutes, once.
CARGO_DENY := 0.20.2
TYPOS := 1.52.0
TOOLS := $(abspath $(TARGET))/tools

.PHONY: audit
audit: ## Licences, sources, advisories and doubled versions of the dependencies (deny.toml), and spelling; builds its tools
	@for tool in cargo-deny@$(CARGO_DENY) typos-cli@$(TYPOS); do \
	  $(CARGO) install -q --locked --root $(TOOLS) $$tool || { echo "make audit: $$tool cannot be built here. It needs the \
	registry of crates and a Rust that is new enough; or put the programs cargo-deny and typos into $(TOOLS)/bin and run: make audit-run" >&2; exit 1; }; \
	done
	@$(MAKE) --no-print-directory audit-run

# The database of advisories is a Git repository. Where it cannot be fetched, everything else is checked all the same.
.PHONY: audit-run
audit-run:
	$(TOOLS)/bin/typos
	$(TOOLS)/bin/cargo-deny check licenses bans sources
	@if timeout 120 $(TOOLS)/bin/cargo-deny fetch db >/dev/null 2>&1; then $(TOOLS)/bin/cargo-deny check advisories; \
	else echo "make audit: the database of advisories cannot be fetched here; advisories are not checked" >&2; fi

.PHONY: test
test: deps ## Everything: check, and all that needs root and DPDK; ends with one summary line
	@tests/run format lint-all unit test-agent fuzz-short loom test-dpdk build instructions sim-short test-system chaos-short test-docker

.PHONY: lint-all
lint-all: deps ## Clippy on every room
	$(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: loom
loom: ## Model-check the lock-free rooms with loom
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom $(CARGO) test --profile loom -p vipa-sync -p vipa-flow --test loom

# The compiler's own sanitizers; a stable compiler has them, too. The thread sanitizer misjudges code that was not compiled with it, so it
# needs a standard library compiled with it, from source. A test that measures resident memory is left out: shadow memory counts there.
SANITIZED := -p vipa-sync -p vipa-flow --lib --tests
SANITIZE = RUSTC_BOOTSTRAP=1 $(CARGO) test --target $(HOST) $(SANITIZED)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
UNMEASURED := -- --skip takes_what_it_needs_and_gives_it_back
STD_SOURCE = $(wildcard $(shell rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock)
.PHONY: sanitize
sanitize: ## Tests of the lock-free rooms under the address sanitizer, and the thread sanitizer where rust-src is installed
	RUSTFLAGS=-Zsanitizer=address $(SANITIZE) --target-dir $(TARGET)/asan $(UNMEASURED)
	@if [ -n "$(STD_SOURCE)" ]; then RUSTFLAGS=-Zsanitizer=thread $(SANITIZE) -Zbuild-std --target-dir $(TARGET)/tsan $(UNMEASURED); \
	else echo "make sanitize: without the thread sanitizer, which needs: rustup component add rust-src" >&2; fi

.PHONY: test-dpdk
test-dpdk: deps ## Tests of the DPDK rooms, on virtual ports (root)
	$(CARGO) test $(GUARDED) -- --test-threads=1
	$(CARGO) test -p vipa-flow --test memory -- --ignored

.PHONY: test-trixie
test-trixie: deps ## The DPDK rooms, built with Debian 13's DPDK (24.11) and tested in a root of its own (root)
	@$(CARGO) fetch -q --locked
	@tests/trixie $(TARGET)/trixie $(TARGET)/trixie-target

# Each has a network namespace of its own, so several run at once; those that measure time are alone.
TIMED := load:: many:: servers::what_is_told
.PHONY: test-agent
test-agent: ## Tests of the agent against this machine's kernel, in network namespaces (root)
	$(CARGO) test --test namespaces -- --ignored --test-threads=3 $(addprefix --skip ,$(TIMED))
	$(CARGO) test --test namespaces -- --ignored --test-threads=1 $(TIMED)

# User-mode Linux is a kernel with every kind of tunnel device, run as a process; most machines' own has them too, but not all.
.PHONY: test-tunnels
test-tunnels: PACKAGES += user-mode-linux kmod
test-tunnels: deps ## The agent's kernel tunnel devices, and its BPF programs, on a kernel of their own: Linux 6.1, half a minute (root)
	@tests/tunnels "$$($(CARGO) test -p vipa-agent --test namespaces --no-run --message-format json | \
	  sed -n 's/.*"executable":"\([^"]*namespaces[^"]*\)".*/\1/p' | tail -1)"

# A command that names the same rooms as `build` uses what that has built.
.PHONY: test-systemd
test-systemd: PACKAGES += user-mode-linux
test-systemd: deps ## The agent's unit with all its hardening, under a systemd on a kernel of its own (root)
	@$(CARGO) build -q -p vipa-agent
	@tests/systemd $(abspath $(TARGET))/systemd "$$($(CARGO) test -p vipa-agent --test namespaces --no-run --message-format json | \
	  sed -n 's/.*"executable":"\([^"]*namespaces[^"]*\)".*/\1/p' | tail -1)" $(TARGET)/debug/vipa-agent

.PHONY: test-capture
test-capture: PACKAGES += tshark
test-capture: deps ## tshark reads what `vipactl capture` writes
	$(CARGO) test -p vipa-cli --test capture -- --ignored

.PHONY: api-description
api-description: ## Write docs/api/openapi.json anew from the program
	WRITE=1 $(CARGO) test -q -p vipa-web --lib the_description_in_the_tree

.PHONY: test-web
test-web: PACKAGES += chromium
test-web: deps build ## The web page of a real router in headless Chromium: a takeover is seen to happen (root)
	$(CARGO) test --release $(BUILT) --test system -- --ignored web_page

# The rules and metrics by Debian's promtool, and a Prometheus that scrapes a cluster whose owner is killed.
.PHONY: test-monitoring
test-monitoring: PACKAGES += prometheus
test-monitoring: deps build ## Alert rules and metrics by promtool, and a real Prometheus beside a cluster: two minutes (root)
	promtool check rules docs/monitoring/vipa.rules.yml
	promtool test rules docs/monitoring/vipa.rules.test.yml
	$(CARGO) test --release $(BUILT) --test system -- --ignored --nocapture monitoring::

.PHONY: test-system test-worker-panic
test-worker-panic: PACKAGES += gdb binutils
test-worker-panic: deps build ## A debugger has a worker of a real router panic (root)
	$(CARGO) test --release $(BUILT) --test system -- --ignored worker_panic

test-system: build ## Whole clusters in network namespaces, one test a requirement (root)
	$(CARGO) test -p vipa-router -p vipa-lab --lib
	$(CARGO) test --release $(BUILT) --test system --test bench_is_honest -- --test-threads=2

.PHONY: chaos
chaos: build ## Kills, pauses, partitions, moves, reloads at random for T seconds under checked connections (root; T=60, SEED=…)
	@$(TARGET)/release/vipa-chaos

.PHONY: chaos-short
chaos-short:
	@$(MAKE) --no-print-directory chaos T=60 SEED=1

# What long runs measure is kept, a line of JSON each.
ROWS ?= perf/results/endurance.jsonl
MANY ?= 1 200 1000 4000

.PHONY: soak
soak: build ## Connections open and close for T seconds (T=3600, FRESH=1000 a second) while owners and agents change; memory is bounded (root)
	@T=$(if $(filter environment command line,$(origin T)),$(T),3600) ROWS=$(ROWS) $(TARGET)/release/vipa-endurance soak

.PHONY: reloads
reloads: build ## Change VIPAs, services and targets by RELOADS reloads (10000) under traffic; nothing is used up (root)
	@ROWS=$(ROWS) $(TARGET)/release/vipa-endurance reloads

.PHONY: many
many: build ## Cold start and takeover of MANY VIPAs each (MANY="1 200 1000 4000") on real processes; the machine to itself (root)
	@ROWS=$(ROWS) $(TARGET)/release/vipa-scale $(MANY)

.PHONY: test-docker
test-docker: build ## The cluster in containers: kill the owner's, check every connection (skipped without an engine)
	@docker/test

# The renderer's version is fixed, as those of `audit` are: Debian 13 has the same one. Building it takes minutes, once.
MDBOOK := 0.4.48
.PHONY: book
book: ## The book, docs/book/SUMMARY.md, as HTML in target/book/html, every link of it checked; builds mdbook the first time
	@[ "$$($(TOOLS)/bin/mdbook --version 2>/dev/null)" = "mdbook v$(MDBOOK)" ] || $(CARGO) install -q --locked --root $(TOOLS) --no-default-features --features search mdbook@$(MDBOOK) || \
	  { echo "make book: mdbook cannot be built here: it needs the registry of crates and a Rust that is new enough; or put \
	mdbook $(MDBOOK) into $(TOOLS)/bin" >&2; exit 1; }
	@docs/book/build $(TOOLS)/bin/mdbook $(TARGET)/book

# Machines made of namespaces; they need neither a hypervisor nor names in `ip netns`.
.PHONY: test-book
test-book: build ## The book's commands exist, and its first cluster works as the page says: two minutes (root)
	@PATH="$(abspath $(TARGET))/release:$$PATH" docs/book/check-commands
	@export PATH="$(abspath $(TARGET))/release:$$PATH" MACHINES=/var/tmp/vipa-test-book-$$PPID; \
	  trap 'docs/book/machines down' EXIT; trap 'exit 1' INT TERM; docs/book/run-page docs/book/first-cluster.md

.PHONY: test-book-packages
test-book-packages: PACKAGES += dpkg-dev binutils
test-book-packages: deps ## The same in a debootstrap root with nothing but Debian and the packages (root, a Debian mirror)
	$(CARGO) build -p vipa-router -p vipa-agent -p vipa-cli
	@tests/book-packages $(TARGET)/book-packages $(TARGET)/debug

# 8 GB is more than they need; a bound set too wide shall end them, and not the machine.
.PHONY: model
model: ## Explore ownership under crashes, drift, consent and second ballots to the end of each bound
	ulimit -v 8000000; $(CARGO) test --release -p vipa-cluster --lib model:: -- --include-ignored --nocapture --test-threads=1

.PHONY: instructions
instructions: build ## Count the packet path's instructions, and hold them to their bounds (WRITE=1 makes them the bounds)
	@$(TARGET)/release/vipa-instructions $(if $(WRITE),--write)

.PHONY: sim
sim: ## Simulate SEEDS clusters under faults and orders (SEEDS=1000; 10000 take four minutes), HOSTILE=1 with a hostile peer
	$(CARGO) run --release -p vipa-sim -- --seeds $(SEEDS) $(if $(HOSTILE),--hostile)

# Lists of what to watch, of some kilobytes each, come and go millions of times: glibc finds places for them faster when it does not look.
.PHONY: sim-scale
sim-scale: ## Simulate SCALE routers, targets and VIPAs: what each node says and keeps (SCALE="64 250 250")
	ulimit -v 16000000; export MALLOC_MMAP_THRESHOLD_=16384 MALLOC_TRIM_THRESHOLD_=1000000000; \
	  $(CARGO) run --release -p vipa-sim -- --scale $(SCALE)

.PHONY: replay
replay: ## Go through what a router recorded (FILE=events.rec; STORY=1 for all of it)
	$(CARGO) run --release -q -p vipa-sim -- --replay $(FILE) $(if $(STORY),--story)

.PHONY: sim-short
sim-short: build
	$(TARGET)/release/vipa-sim --seeds 200
	$(TARGET)/release/vipa-sim --seeds 30 --hostile

# libFuzzer as cargo-fuzz builds it, but with the stable compiler and nothing to install: its coverage is a pass of LLVM's that
# the compiler has anyway. An explicit --target keeps it out of build scripts. Inputs that crash are kept in fuzz/artifacts:
# make each a test with a name, beside the others of its room. The corpus in the tree, fuzz/corpus, seeds every run and is only
# read; new inputs go to the build directory, and `make fuzz-minimise` takes over those that reach more code.
FUZZERS := fuzz-parse fuzz-rewrite fuzz-forward
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
              -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
              -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
FUZZ_NEW := $(TARGET)/fuzz/corpus

.PHONY: fuzz
fuzz: ## Fuzz parser, rewrites and the whole worker, T seconds each, two at a time (T=60)
	@$(MAKE) --no-print-directory -j2 $(FUZZERS)

.PHONY: fuzz-short
fuzz-short:
	@$(MAKE) --no-print-directory fuzz T=20

.PHONY: fuzz-build
fuzz-build:
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build -q --release --manifest-path fuzz/Cargo.toml \
	  --target-dir $(TARGET)/fuzz --target $(HOST)

.PHONY: $(FUZZERS)
$(FUZZERS): fuzz-%: fuzz-build
	@mkdir -p $(FUZZ_NEW)/$* fuzz/corpus/$* fuzz/artifacts/$*
	@log=$(TARGET)/fuzz/$*.log; \
	FUZZ_CORPUS=$(FUZZ_NEW) $(TARGET)/fuzz/$(HOST)/release/$* $(FUZZ_NEW)/$* fuzz/corpus/$* -artifact_prefix=fuzz/artifacts/$*/ \
	  -max_total_time=$(T) -max_len=4096 >$$log 2>&1 || { tail -40 $$log; exit 1; }; \
	echo "$*: $$(grep -a '^Done' $$log | tail -1)"

.PHONY: fuzz-minimise
fuzz-minimise: $(FUZZERS:fuzz-%=fuzz-minimise-%) ## Keep the fewest fuzzing inputs that reach all the code reached so far in fuzz/corpus

.PHONY: $(FUZZERS:fuzz-%=fuzz-minimise-%)
$(FUZZERS:fuzz-%=fuzz-minimise-%): fuzz-minimise-%: fuzz-build
	@rm -rf $(FUZZ_NEW)-kept/$* && mkdir -p $(FUZZ_NEW)-kept/$* $(FUZZ_NEW)/$* fuzz/corpus/$*
	@$(TARGET)/fuzz/$(HOST)/release/$* -set_cover_merge=1 -max_len=4096 $(FUZZ_NEW)-kept/$* fuzz/corpus/$* $(FUZZ_NEW)/$* >$(TARGET)/fuzz/$*.log 2>&1 \
	  || { tail -40 $(TARGET)/fuzz/$*.log; exit 1; }
	@rm -rf fuzz/corpus/$* && mv $(FUZZ_NEW)-kept/$* fuzz/corpus/$*
	@echo "$*: $$(ls fuzz/corpus/$* | wc -l) inputs, $$(du -sb fuzz/corpus/$* | cut -f1) bytes"

# The bench asks for hugepages; interrupted, it leaves giving them back to the trap.
.PHONY: bench
bench: PACKAGES += $(BENCH_PACKAGES)
bench: deps ## Every speed we owe, measured beside testpmd: nine minutes (root; ONLY=P1,P4)
	$(CARGO) build --release -p vipa-perf -p vipa-agent -p vipa-router -p vipa-cli -p vipa-lab
	@pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages; before=$$(cat $$pages); unmount=true; \
	grep -q ' hugetlbfs ' /proc/mounts || { mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && \
	  unmount='umount /dev/hugepages'; }; \
	trap "echo $$before > $$pages; $$unmount" EXIT; trap 'exit 1' INT TERM; \
	$(TARGET)/release/vipa-perf $(if $(ONLY),--only $(ONLY))

.PHONY: bench-memif
bench-memif: PACKAGES += $(BENCH_PACKAGES)
bench-memif: deps ## vipad between the ends of a memif, beside testpmd there: a minute (root; FLOWS=64 ROUNDS=9)
	$(CARGO) build --release -p vipa-agent -p vipa-router -p vipa-cli
	@perf/memif $(TARGET)/release

.PHONY: demo
demo: build ## A takeover and a takeback under 2,000 connections (root; CONNECTIONS=20000, PORTS=tap)
	@$(TARGET)/release/vipa-demo

# What an installation needs; the programs are linked to the DPDK of the system that they are built on.
PACKED := README.md CHANGELOG.md SECURITY.md LICENSE-APACHE LICENSE-MIT docs dist dpdk-config
ARCHIVE = vipa-$(VERSION)-$(shell uname -m)
.PHONY: package
package: build
	@test -n "$(VERSION)" || { echo "make package: say VERSION=…" >&2; exit 1; }
	@rm -rf $(TARGET)/dist/$(ARCHIVE) && mkdir -p $(TARGET)/dist/$(ARCHIVE)/bin
	@cp $(addprefix $(TARGET)/release/,vipad vipa-agent vipactl) $(TARGET)/dist/$(ARCHIVE)/bin && cp -r $(PACKED) $(TARGET)/dist/$(ARCHIVE) && rm $(TARGET)/dist/$(ARCHIVE)/dist/release
	@cd $(TARGET)/dist && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$$(git log -1 --format=%ct) \
	  -c $(ARCHIVE) | gzip -n > $(ARCHIVE).tar.gz && sha256sum $(ARCHIVE).tar.gz > $(ARCHIVE).tar.gz.sha256
	@echo "$(TARGET)/dist/$(ARCHIVE).tar.gz"

# By the tools of dpkg-dev alone: dist/debian/build says why.
.PHONY: deb
deb: PACKAGES += dpkg-dev binutils
deb: deps ## Debian packages vipa-router, vipa-agent and vipa-tools with debug symbols apart, for this release of Debian: target/deb
	$(CARGO) build --release -p vipa-router -p vipa-agent -p vipa-cli
	@dist/debian/build $(TARGET)/release $(TARGET)/deb

# Debug builds, because what is tested is the packages: minutes less.
.PHONY: test-packages
test-packages: PACKAGES += dpkg-dev binutils
test-packages: deps ## Install, start, upgrade, downgrade, remove and purge the packages in a debootstrap root (root, a Debian mirror)
	$(CARGO) build -p vipa-router -p vipa-agent -p vipa-cli
	@tests/packages $(TARGET)/packages $(TARGET)/debug

DEBIAN ?= bookworm
DEBS ?= $(TARGET)/deb
.PHONY: images
images: ## Container images vipa-router, vipa-agent and vipa-tools from the packages in DEBS (after `make deb`; DEBIAN=bookworm or trixie)
	@ls $(DEBS)/vipa-router_*.deb >/dev/null || { echo "make images: there are no packages in $(DEBS); run make deb first" >&2; exit 1; }
	@docker/base $(DEBIAN)
	@for image in router agent tools; do \
	  docker build -q --target $$image -t vipa-$$image -f docker/images.Dockerfile --build-arg DEBIAN=$(DEBIAN) \
	    --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) --build-arg REVISION=$$(git rev-parse HEAD) $(DEBS) || exit 1; \
	done

# Everything here, nothing elsewhere: pushing the tag and giving the archive away is left to a person.
.PHONY: release
release: ## Test, pack and tag the release VERSION=… that Cargo.toml and CHANGELOG.md name already; pushes nothing (root)
	@dist/release $(VERSION)

.PHONY: clean
clean: ## Remove everything that was built
	$(CARGO) clean
