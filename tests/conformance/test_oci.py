"""The hook under the real runc and the real crun, with no engine above them: a bundle, a config.json, and annotations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conformance.images import NAME
from tests.conformance.podman import TOOLS, Podman
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conformance.home import Home

# crun takes the second hierarchy of a machine with both for its own, where such a machine lets nobody write.
OWN_CGROUPS = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
RUN_AS_ROOT = ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_KILL"]
SERVE = "busybox mkdir -p /tmp/www; echo -n {name} > /tmp/www/index.html; exec busybox httpd -f -p {port} -h /tmp/www"
DEADLINE = 20


class Runtime:
    """One of the two, on the host of a lab."""

    def __init__(self, lab: Lab, home: Home, name: str) -> None:
        home.need(name)
        self.lab, self.home, self.name = lab, home, name
        self._root = f"{lab.directory}/{name}"
        self.hook = str(staged(lab, home) / "usr/local/libexec/vethwork/oci-hook")

    def command(self, *words: str) -> list[str]:
        """The command line of one call."""
        entry = ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_CGROUPS, "sh"]
        entry = entry if self.name == "crun" else []
        return self.home.words(*entry, self.name, "--root", self._root, *words)

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One call to its end."""
        return self.lab.host.run(self.command(*words), check=check, timeout=DEADLINE)

    def hooks(self, **more: list[Any]) -> dict[str, list[Any]]:
        """Ours, with an environment that holds nothing but where the records are."""
        environment = [f"{key}={self.lab.host.environment[key]}" for key in ("VETHWORK_ROOT", "VETHWORK_RUN")]
        both = {
            stage: [
                {"path": self.hook, "args": ["vethwork-oci", *verb], "env": environment, "timeout": DEADLINE}
            ]
            for stage, verb in (("createRuntime", ["attach"]), ("poststop", ["detach"]))
        }
        for stage, hooks in more.items():
            both[stage] = both.get(stage, []) + hooks
        return both

    def bundle(
        self, name: str, script: str, hooks: dict[str, list[Any]] | None = None, /, **wishes: str
    ) -> str:
        """A bundle that runs a script under busybox; ``wishes`` are our annotations."""
        path = Path(self.lab.directory, "bundles", self.name, name)
        for each in ("bin", "proc", "dev", "sys", "tmp"):
            (path / "rootfs" / each).mkdir(parents=True)
        shutil.copy(self.home.find("busybox"), path / "rootfs/bin/busybox")
        (path / "rootfs/bin/sh").symlink_to("busybox")
        subprocess.run(
            self.home.words(self.name, "spec", "--bundle", str(path)), check=True, timeout=DEADLINE
        )
        said = json.loads((path / "config.json").read_text())
        said["process"] |= {"args": ["/bin/sh", "-c", script], "terminal": False}
        for capabilities in said["process"]["capabilities"].values():
            capabilities[:] = RUN_AS_ROOT
        said["root"]["readonly"] = False
        said["mounts"] = [each for each in said["mounts"] if each["type"] != "cgroup"]
        said["annotations"] = {f"io.vethwork.{key}": value for key, value in wishes.items()}
        said["hooks"] = self.hooks() if hooks is None else hooks
        (path / "config.json").write_text(json.dumps(said))
        return str(path)

    def edit(self, bundle: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a bundle's configuration."""
        path = Path(bundle, "config.json")
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    def start(self, name: str, bundle: str) -> None:
        """Run a container in the background."""
        null = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        command = self.command("run", "--detach", "--bundle", bundle, name)
        assert self.lab.host.popen(command, **null).wait(DEADLINE) == 0

    def end(self, name: str) -> None:
        """Kill a container, and have the runtime forget it."""
        self.call("delete", "--force", name)

    def left(self) -> list[str]:
        """The containers that the runtime knows."""
        return self.call("list", "--quiet").stdout.split()


def staged(lab: Lab, home: Home) -> Path:
    """What ``vethwork install oci`` writes; the launcher starts the interpreter of the home."""
    stage = Path(lab.directory, "stage")
    hook = stage / "usr/local/libexec/vethwork/oci-hook"
    if not hook.exists():
        lab.host.vethwork("install", "oci", "--root", str(stage))
        hook.write_text(hook.read_text().replace(sys.executable, home.python))
    return stage


class Traces(NamedTuple):
    """What is on the host: its links, its published ports, and who is on record."""

    links: list[str]
    ports: str
    containers: list[dict[str, Any]]


def traces(lab: Lab) -> Traces:
    """Read by iproute2 and nft, and from the records."""
    links = [link["ifname"] for link in json.loads(lab.host.run(["ip", "-j", "link"]).stdout)]
    listed = lab.host.run(["nft", "list", "ruleset"]).stdout
    ports = "\n".join(line for line in listed.splitlines() if "8080" in line or "8081" in line)
    return Traces(sorted(links), ports, json.loads(lab.host.vethwork("ps", "--json").stdout))


def assert_nothing_left(lab: Lab) -> None:
    """Assert that no container has left a trace; the default network stays, as ever."""
    seen = traces(lab)
    assert seen.containers == []
    assert seen.ports == ""
    kept = ("lo", "eth0", "vethwork0")
    assert [link for link in seen.links if link not in kept and not link.startswith("vw-")] == []


def hear(lab: Lab, url: str) -> str:
    """What a container answers the neighbour, once its server listens: a runtime returns when the process has been started."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return lab.neighbour.fetch(url).text
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@pytest.fixture
def lab(tool: Callable[[str], str]) -> Iterator[Lab]:
    for name in ("ip", "nft", "unshare"):
        tool(name)
    with Lab() as made:
        yield made


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, lab: Lab, home: Home) -> Iterator[Runtime]:
    made = Runtime(lab, home, request.param)
    yield made
    for name in made.left():
        made.end(name)


def test_a_process_that_runs_to_its_end(runtime: Runtime, lab: Lab) -> None:
    bundle = runtime.bundle(
        "job", f"busybox ip -4 addr show eth0; busybox ping -c 1 -W 2 {lab.internet.v4}", publish="8080:80"
    )
    done = runtime.call("run", "--bundle", bundle, "job")
    assert "inet 10.76.0.2/22" in done.stdout
    assert "1 packets received" in done.stdout
    assert_nothing_left(lab)


def test_a_published_port(runtime: Runtime, lab: Lab) -> None:
    lab.host.vethwork(
        "network", "create", "blue", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64"
    )
    bundle = runtime.bundle(
        "web", SERVE.format(name="web", port=80), network="blue", publish="8080:80", ip="10.9.0.9", ip6="fd09::9",
        mac="02:00:00:00:00:09",
    )  # fmt: skip
    runtime.start("web", bundle)
    for host in (lab.host.v4, f"[{lab.host.v6}]"):
        assert hear(lab, f"http://{host}:8080/") == "web"
    (seen,) = traces(lab).containers
    assert (seen["name"], seen["owner"], seen["mode"]) == ("web", "oci", "blue")
    assert seen["endpoints"][0]["addresses"] == ["10.9.0.9/24", "fd09::9/64"]
    assert seen["endpoints"][0]["mac"] == "02:00:00:00:00:09"
    runtime.end("web")
    assert not lab.neighbour.reaches(lab.host.v4, 8080)
    assert_nothing_left(lab)


def test_two_at_once_and_one_id_after_the_other(runtime: Runtime, lab: Lab) -> None:
    bundles = {
        name: runtime.bundle(name, SERVE.format(name=name, port=80), publish=f"{port}:80")
        for name, port in (("one", 8080), ("two", 8081))
    }
    for _ in range(2):
        for name, bundle in bundles.items():
            runtime.start(name, bundle)
        assert hear(lab, f"http://{lab.host.v4}:8080/") == "one"
        assert hear(lab, f"http://{lab.host.v4}:8081/") == "two"
        runtime.end("one")
        assert lab.neighbour.fetch(f"http://{lab.host.v4}:8081/").text == "two"
        runtime.end("two")
        assert_nothing_left(lab)


def test_two_networks(runtime: Runtime, lab: Lab) -> None:
    for name in ("blue", "lab"):
        lab.host.vethwork("network", "create", name)
    bundle = runtime.bundle("both", "busybox ip -o -4 addr; busybox ip route", network="blue, lab")
    said = runtime.call("run", "--bundle", bundle, "both").stdout
    assert all(f"{ifname} " in said for ifname in ("eth0", "eth1"))
    assert said.count("default via") == 1
    assert_nothing_left(lab)


def test_no_network(runtime: Runtime, lab: Lab) -> None:
    bundle = runtime.bundle("alone", "busybox ip -o addr", network="none")
    said = runtime.call("run", "--bundle", bundle, "alone").stdout
    assert "127.0.0.1" in said
    assert "eth0" not in said
    assert_nothing_left(lab)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"publish": "http:80"}, "'http' is not a port"),
        ({"publish": "8080:80,8080:81"}, "8080"),
        ({"network": "nowhere"}, "there is none of that name"),
        ({"network": "host"}, "is the runtime's to give"),
        ({"ip": "192.0.2.77"}, "192.0.2.77"),
        ({"publsh": "80:80"}, "io.vethwork.publsh"),
    ],
)
def test_what_cannot_be_had_fails_the_container(
    runtime: Runtime, lab: Lab, wishes: dict[str, str], words: str
) -> None:
    bundle = runtime.bundle("bad", "echo ran", None, **wishes)
    # crun does not show what a hook says, unless it is told where to put it.
    log = f"{lab.directory}/said"
    runtime.edit(bundle, lambda said: said["annotations"].update({"run.oci.hooks.stderr": log}))
    done = runtime.call("run", "--bundle", bundle, "bad", check=False)
    said = done.stderr + (Path(log).read_text() if Path(log).exists() else "")
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert words in said
    assert "Traceback" not in said
    assert runtime.left() == []
    assert_nothing_left(lab)


def test_a_container_in_the_host_s_namespace(runtime: Runtime, lab: Lab) -> None:
    bundle = runtime.bundle("bare", "echo ran")

    def share(said: dict[str, Any]) -> None:
        said["linux"]["namespaces"] = [
            each for each in said["linux"]["namespaces"] if each["type"] != "network"
        ]
        said["mounts"] = [each for each in said["mounts"] if each["type"] != "sysfs"]

    runtime.edit(bundle, share)
    before = traces(lab)
    done = runtime.call("run", "--bundle", bundle, "bare", check=False)
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert traces(lab) == before


def test_a_hook_of_others_that_fails_afterwards(runtime: Runtime, lab: Lab) -> None:
    broken = {"path": shutil.which("false"), "args": ["false"]}
    hooks = runtime.hooks(createRuntime=[broken])
    bundle = runtime.bundle("doomed", "echo ran", hooks, publish="8080:80")
    done = runtime.call("run", "--bundle", bundle, "doomed", check=False)
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert runtime.left() == []
    if traces(lab).containers:  # not every runtime calls poststop for a container that never was
        lab.host.vethwork("gc")
    assert_nothing_left(lab)


def test_another_container_of_the_same_id_is_left_alone(runtime: Runtime, lab: Lab) -> None:
    runtime.start("web", runtime.bundle("web", SERVE.format(name="first", port=80), publish="8080:80"))
    other = Runtime(lab, runtime.home, {"runc": "crun", "crun": "runc"}[runtime.name])
    done = other.call("run", "--bundle", other.bundle("web", "echo ran"), "web", check=False)
    assert done.returncode != 0
    assert hear(lab, f"http://{lab.host.v4}:8080/") == "first"
    runtime.end("web")
    assert_nothing_left(lab)


def test_a_container_whose_poststop_never_ran(runtime: Runtime, lab: Lab) -> None:
    hooks = {"createRuntime": runtime.hooks()["createRuntime"]}
    bundle = runtime.bundle("lost", SERVE.format(name="lost", port=80), hooks, publish="8080:80")
    runtime.start("lost", bundle)
    runtime.end("lost")
    # Who comes next and wants what it held has it; gc takes the rest.
    again = runtime.bundle("next", SERVE.format(name="next", port=80), publish="8080:80")
    runtime.start("next", again)
    assert hear(lab, f"http://{lab.host.v4}:8080/") == "next"
    runtime.end("next")
    assert_nothing_left(lab)


def test_the_hook_of_the_hooks_directory_goes_by_the_status(runtime: Runtime, lab: Lab) -> None:
    hooks = runtime.hooks()
    for each in [*hooks["createRuntime"], *hooks["poststop"]]:
        each["args"] = ["vethwork-oci"]
    bundle = runtime.bundle("web", SERVE.format(name="web", port=80), hooks, publish="8080:80")
    runtime.start("web", bundle)
    assert hear(lab, f"http://{lab.host.v4}:8080/") == "web"
    runtime.end("web")
    assert_nothing_left(lab)


def test_podman_injects_the_hook(lab: Lab, home: Home) -> None:
    """Our file for hooks directories (oci-hooks(5)) is one that the real Podman reads, mark and all."""
    home.need(*TOOLS)
    stage = staged(lab, home)
    hooks = stage / "etc/containers/oci/hooks.d"
    said = json.loads((hooks / "vethwork.json").read_text())
    records = [f"{key}={lab.host.environment[key]}" for key in ("VETHWORK_ROOT", "VETHWORK_RUN")]
    said["hook"] |= {"path": f"{stage}{said['hook']['path']}", "env": records}
    (hooks / "vethwork.json").write_text(json.dumps(said))
    podman = Podman(lab, home, stage, "", f"--hooks-dir={hooks}")
    wishes = ["network=bridge", "publish=8080:80"]
    annotations = [word for wish in wishes for word in ("--annotation", f"io.vethwork.{wish}")]
    podman("run", "--detach", "--name", "web", "--network", "none", *annotations, NAME)
    podman("run", "--rm", "--network", "none", NAME, "true")  # not annotated: none of the hook's business
    assert hear(lab, f"http://{lab.host.v4}:8080/") == "hello from a container\n"
    (seen,) = traces(lab).containers
    assert (seen["owner"], seen["name"]) == (
        "oci",
        podman("inspect", "--format", "{{.Id}}", "web").stdout.strip(),
    )
    podman("rm", "--force", "--time", "0", "web")
    assert_nothing_left(lab)
