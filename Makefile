# make demo     install into .venv, and watch every feature once
# make test     everything below, in this order; what CI runs
# make check    formatting, lint, types, laws and unit tests: no root needed
# make kernel   the tests against the real kernel, each in namespaces of its own (root)
# make fault    the tests that kill the engine at every step (root)
# make fault-syscalls  the same at every single system call of an attach and of a detach: five minutes, not in `make test`
# make conformance  the tests with the real container runtimes, installed by apt (root)
# make conformance-sid  the same tests with the newest runtimes, those of Debian sid, in a folder that it makes (root; minutes)
# make soak     10,000 attaches and detaches through the service, and nothing has grown (root; minutes)
# make format   rewrite the sources the way `make check` wants them
# make docs     write docs/scenarios anew, from live runs (root); read the difference before you commit it
# make bench    measure beside netavark, the CNI plugins, Docker and Podman, into docs/benchmarks (root, 25 minutes;
#               BENCH_QUICK=1: 3 minutes, into build/bench). Some parts only: make bench PARTS="attach connections"
# make clean    remove what was installed and built here

PYTHON ?= python3
export PYTHON
BIN := .venv/bin
# So many sessions share the tests, each with a machine of its own (tests/conftest.py). Those against the kernel may be shared
# too (pytest -n 4 --dist loadfile tests/kernel: three minutes), but some of them wait for what must come within a second.
JOBS ?= 2
SHARED := $(BIN)/pytest -n $(JOBS) --dist
CNI_TOOLS := containerd:containerd ctr:containerd runc:runc busybox:busybox-static podman:podman \
	/usr/lib/cni/loopback:containernetworking-plugins
NETAVARK_TOOLS := podman:podman runc:runc busybox:busybox-static /usr/lib/podman/aardvark-dns:aardvark-dns
DOCKER_TOOLS := dockerd:docker.io busybox:busybox-static
OCI_TOOLS := runc:runc crun:crun busybox:busybox-static
KERNEL_TOOLS := ip:iproute2 nft:nftables ping:iputils-ping conntrack:conntrack curl:curl strace:strace \
	sysctl:procps

SID ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),/var/cache)/vethwork-conformance/sid
SID_PACKAGES := podman netavark aardvark-dns crun runc containerd docker.io docker-cli iptables containernetworking-plugins \
	busybox-static python3
SID_TESTS := test_podman.py test_containerd.py test_chains.py test_cni_names.py test_docker.py test_docker_beside.py test_oci.py \
	test_together.py

# The peers that are measured are the distribution's own builds, so ours runs by its own Python, if that is new enough.
BENCH := build/bench-python
BENCH_PYTHON ?= $(shell for each in /usr/bin/python3 "$(PYTHON)"; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)

# One after the other also under make -j: the cheap ones first.
.NOTPARALLEL:
.PHONY: demo test check kernel fault fault-syscalls conformance conformance-sid soak format docs bench clean

demo: .venv/.installed
	$(BIN)/vethwork demo

test: check kernel fault conformance

check: .venv/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(SHARED) loadfile tests/law tests/unit

kernel: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS)
	$(BIN)/pytest tests/kernel

fault: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS) strace:strace
	$(SHARED) worksteal tests/fault

fault-syscalls: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS) strace:strace
	VETHWORK_EVERY_SYSCALL=1 $(BIN)/pytest -o faulthandler_timeout=0 tests/fault/test_syscalls.py

conformance: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS) $(CNI_TOOLS) $(NETAVARK_TOOLS) $(DOCKER_TOOLS) $(OCI_TOOLS)
	$(BIN)/pytest tests/conformance

conformance-sid: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS) debootstrap:debootstrap
	tools/sid $(SID) $(SID_PACKAGES)
	VETHWORK_RUNTIMES=$(SID) $(BIN)/pytest $(addprefix tests/conformance/,$(SID_TESTS))

soak: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS)
	VETHWORK_SOAK=10000 $(BIN)/pytest --capture=no -o faulthandler_timeout=0 tests/kernel/test_soak.py

format: .venv/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: .venv/.installed-dev
	tools/need $(KERNEL_TOOLS)
	VETHWORK_WRITE_DOCS=1 $(BIN)/pytest tests/kernel/test_scenarios.py

bench: $(BENCH)/.installed
	tools/need $(KERNEL_TOOLS)
	$(BENCH)/bin/python -m bench $(PARTS)

# Made anew only when pyproject.toml has changed since.
.venv/.installed: pyproject.toml
	tools/need ensurepip:python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[serve]'
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --editable '.[dev,serve]'
	touch $@

$(BENCH)/.installed: pyproject.toml
	PYTHON=$(BENCH_PYTHON) tools/need ensurepip:python3-venv
	$(BENCH_PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --editable '.[bench,serve]'
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage src/*.egg-info
