"""Runtimes' calls through the service: the same answers as without it, whoever else is there and whatever happens."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.heard import Heard
from tests.kernel.service import LAUNCHER, Service, ask, launch, request, serving
from tests.kernel.stage import eventually, links
from tests.kernel.test_cni import conf, mapped
from tests.podman import container, info, joined
from tests.podman import mapped as podman_port
from vethwork.kernel import libc
from vethwork.service.http import CONNECTIONS
from vethwork.store.locks import Locks
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vethwork.testing.machine import Machine

NOBODY = 65534
PR_CAPBSET_DROP, CAP_NET_ADMIN = 24, 12
SLEEP = [sys.executable, "-IS", "-c", "import time; time.sleep(600)"]
STATUS = json.dumps(conf()).encode()


def cni(verb: str, pod: Machine, name: str = "pod", **more: str) -> dict[str, str]:
    """The environment of a call."""
    return {"CNI_COMMAND": verb, "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0", "CNI_NETNS": pod.path} | more


def pod_network(**more: Any) -> str:
    """A configuration in which nothing is left to chance, but the name of the host's end."""
    return json.dumps(
        conf(
            subnets=("10.7.0.0/24", "fd07::/64"), mac="02:00:00:00:00:07", runtimeConfig=mapped(8080), **more
        )
    )


# The same answer ---------------------------------------------------------------------------------------------------------


def tell_cni(lab: Lab) -> list[Heard]:
    """A life by CNI, with what goes wrong in one."""
    pod = lab.container("pod")
    keep = {"cni.dev/valid-attachments": [{"containerID": "pod", "ifname": "eth0"}]}
    told = [
        ("STATUS", pod_network()),
        ("ADD", pod_network()),
        ("ADD", pod_network()),
        ("CHECK", pod_network()),
    ]
    told += [("GC", pod_network(**keep)), ("DEL", pod_network()), ("DEL", pod_network()), ("ADD", "nonsense")]
    told += [("CHECK", pod_network()), ("VERSION", "{}"), ("DANCE", "{}"), ("", "")]
    said = [launch(lab.host, "cni", stdin=stdin, environ=cni(verb, pod)) for verb, stdin in told]
    return [*said, launch(lab.host, "cni", stdin=pod_network(), environ=cni("ADD", lab.host))]


def tell_netavark(lab: Lab) -> list[Heard]:
    """A life by netavark."""
    pod, config = lab.container("pod"), f"{lab.directory}/networks"
    document = json.dumps(
        container({"blue": joined(static_mac="02:00:00:00:00:08")}, info(), port_mappings=[podman_port(8080)])
    )
    created = json.dumps(
        {"network": info("red", "10.88.0.0/24"), "used": {"interfaces": [], "names": {}, "subnets": []}}
    )
    head = ("--config", config, "--rootless=false", "--aardvark-binary=")
    told: list[tuple[tuple[str, ...], str]] = [(("create",), created)]
    told += [((verb, pod.path), document) for verb in ("setup", "setup", "teardown", "teardown")]
    told += [(("update", "blue", "--network-dns-servers", ""), ""), (("update", "blue"), "")]
    told += [(("setup", pod.path), "nonsense"), (("setup",), document), (("version",), ""), (("dance",), "")]
    return [launch(lab.host, "netavark", *head, *words, stdin=stdin) for words, stdin in told]


def tell_oci(lab: Lab) -> list[Heard]:
    """A life by hooks."""

    def start() -> subprocess.Popen[str]:
        libc.unshare(libc.CLONE_NEWNET)
        return subprocess.Popen(SLEEP, text=True, start_new_session=True)

    process = lab._processes.start(lambda: lab.host.inside(start))
    annotations = {"io.vethwork.network": "bridge", "io.vethwork.publish": "8080:80"}
    alive = {"id": "web", "status": "creating", "pid": process.pid, "annotations": annotations}
    dead = {"id": "web", "status": "stopped"}
    said = [
        launch(lab.host, "oci", *words, stdin=json.dumps(alive)) for words in ((), ("attach",), ("detach",))
    ]
    process.kill()
    process.wait()
    said += [
        launch(lab.host, "oci", *words, stdin=json.dumps(dead)) for words in ((), ("detach",), ("attach",))
    ]
    return [*said, launch(lab.host, "oci", "--help"), launch(lab.host, "oci", stdin="nonsense")]


TALES = {"cni": (tell_cni, 11), "netavark": (tell_netavark, 9), "oci": (tell_oci, 7)}


def without_chance(text: str, lab: Lab) -> str:
    """What differs from one life to the next: random ids, processes, and the lab's directory."""
    text = re.sub(r"\bvwe?-?[0-9a-f]{8,12}\b|\b(?!02:00:)(\w\w:){5}\w\w\b|/proc/\d+|process \d+", "X", text)
    return text.replace(lab.directory, "LAB")


@pytest.mark.parametrize("tool", sorted(TALES))
def test_the_answers_are_those_of_who_does_the_work_himself(tool: str) -> None:
    tell, handed_over = TALES[tool]
    with Lab() as lab:
        alone = [[without_chance(text, lab) for text in map(str, heard)] for heard in tell(lab)]
    with serving() as service:
        served = [
            [without_chance(text, service.lab) for text in map(str, heard)] for heard in tell(service.lab)
        ]
        assert served == alone
        assert service.served() == handed_over
        assert service.stop() == ""


def test_a_word_may_be_empty(steady: Service) -> None:
    """Podman gives an empty list of name servers so."""
    words = ["--config", f"{steady.lab.directory}/networks", "update", "blue", "--network-dns-servers"]
    assert steady.call("netavark", [*words, ""]) == (200, b"0 0 0\n")
    status, body = steady.call("netavark", words)
    assert (status, body[:2]) == (200, b"2 ")


# Who is served -----------------------------------------------------------------------------------------------------------


def declined(steady: Service, act: Callable[[], object], **environ: str) -> tuple[int, bytes]:
    """What a process hears that connects, does something to itself, and calls then."""

    def call() -> tuple[int, bytes]:
        with steady.connect(steady.run) as made:
            act()
            return ask(
                made,
                request(steady.host, "cni", (), STATUS, steady.version, {"CNI_COMMAND": "STATUS", **environ}),
            )

    return steady.host.call(call)


def lose_capability() -> None:
    """As a unit with a CapabilityBoundingSet has it."""
    data = (ctypes.c_uint32 * 6)(*[0] * 6)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    assert ctypes.CDLL(None).capset(header, data) == 0


ELSEWHERE: dict[str, tuple[Callable[[], object], bytes]] = {
    "network": (lambda: libc.unshare(libc.CLONE_NEWNET), b"you have another net namespace\n"),
    "mounts": (lambda: libc.unshare(libc.CLONE_NEWNS), b"you have another mnt namespace\n"),
    "user namespace": (lambda: libc.unshare(0x10000000), b"you have another user namespace\n"),
    "root directory": (lambda: os.chroot("/run"), b"you have another root directory\n"),
    "capabilities": (lose_capability, b"you lack CAP_NET_ADMIN or CAP_SYS_ADMIN\n"),
}


@pytest.mark.parametrize("what", sorted(ELSEWHERE))
def test_who_stands_elsewhere_is_declined(steady: Service, what: str) -> None:
    act, why = ELSEWHERE[what]
    assert declined(steady, lambda: None)[0] == 200
    assert declined(steady, act) == (421, why)


def test_another_user_is_not_even_heard(steady: Service) -> None:
    os.chmod(steady.run, 0o666)
    os.chmod(steady.lab.directory, 0o755)

    def as_nobody() -> bytes:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with steady.connect(steady.run) as made, suppress(BrokenPipeError, ConnectionResetError):
            made.sendall(b"GET /metrics HTTP/1.1\r\nHost:\r\n\r\n")
            return made.recv(100)
        return b""

    assert steady.host.call(as_nobody) == b""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"VETHWORK_ROOT": "/tmp/other"}, "this service is that of"),
        ({"VETHWORK_RUN": "/tmp/other"}, "this service is that of"),
        ({"VETHWORK_ROOT": ""}, "this service is that of"),
        ({"VETHWORK_ROOT": "root"}, "depends on where you are"),
        ({"version": "0.0.1"}, "this service is vethwork"),
    ],
    ids=["root", "run", "default", "relative", "version"],
)
def test_who_means_something_else_is_declined(steady: Service, said: Mapping[str, str], why: str) -> None:
    status, body = steady.call("cni", (), STATUS, CNI_COMMAND="STATUS", **said)
    assert (status, why in body.decode()) == (421, True), body


def test_a_path_that_is_relative_is_declined(steady: Service) -> None:
    for option in ("--config", "--aardvark-binary", "--file"):
        assert steady.call("netavark", [option, "here", "update", "blue"])[0] == 421
    assert steady.call("netavark", ["--config", "/here", "update", "blue"])[0] == 200


def test_who_is_declined_does_the_work_himself(service: Service) -> None:
    """The ruleset is the service's; what he cannot change himself, it changes for him."""
    pod, other = service.lab.container("pod"), f"{service.lab.directory}/other"
    environ = cni("ADD", pod) | {"VETHWORK_RUN": other}
    heard = launch(service.host, "cni", stdin=pod_network(), environ=environ)
    assert (heard.status, service.served()) == (0, 0), heard
    assert (
        launch(service.host, "cni", stdin=pod_network(), environ=environ | {"CNI_COMMAND": "DEL"}).status == 0
    )


# Bad clients -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/call/docker", b"", 404),
        ("/call/", b"", 404),
        ("/call/../cni", b"", 404),
        ("/nonsense", b"", 404),
        ("/call/cni?{v}", b"", 400),
        ("/call/cni?{v}&1&1", b"", 400),
        ("/call/cni?{v}&-1&1", b"xx", 400),
        ("/call/cni?{v}&x&y", b"xx", 400),
        ("/call/cni?{v}&0&99999999999999999999", b"xx", 400),
        ("/call/cni", b"", 421),
    ],
)
def test_what_is_no_call(steady: Service, path: str, body: bytes, status: int) -> None:
    said = f"POST {path.format(v=steady.version)} HTTP/1.1\r\nHost:\r\nConnection: close\r\n"
    data = f"{said}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def call() -> int:
        with steady.connect(steady.run) as made:
            return ask(made, data)[0]

    assert steady.host.call(call) == status


def test_bad_clients_hold_up_no_good_one(steady: Service) -> None:
    """More than may connect, half of a request from each, one that never ends, and 10 MB of nonsense."""
    half = request(steady.host, "cni", (), STATUS, steady.version, {"CNI_COMMAND": "STATUS"})[:-10]
    with ExitStack() as stack:
        slow = [stack.enter_context(steady.connect(steady.run)) for _ in range(CONNECTIONS + 150)]
        for made in slow[100:]:
            with suppress(BrokenPipeError, ConnectionResetError):
                made.sendall(half)
        assert steady.call("cni", (), STATUS, CNI_COMMAND="STATUS")[0] == 200
        assert len(os.listdir(f"/proc/{steady.process.pid}/fd")) < CONNECTIONS + 100
        endless = stack.enter_context(steady.connect(steady.run))
        endless.sendall(half[:-300])
        pool = stack.enter_context(ThreadPoolExecutor(1))
        environ = {"CNI_COMMAND": "ADD"}
        large = pool.submit(launch, steady.host, "cni", stdin="[" * (10 << 20), environ=environ)
        for _ in range(5):
            began = time.monotonic()
            assert steady.call("cni", (), STATUS, CNI_COMMAND="STATUS")[0] == 200
            assert time.monotonic() - began < 2
        assert json.loads(large.result(20).out)["code"] == 6
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 20:  # a byte now and then, as slowly as may be
                endless.sendall(b"x")
                endless.settimeout(0.2)
                with suppress(TimeoutError):
                    if endless.recv(100) == b"":
                        break
        assert time.monotonic() - began < 10, "it is cut off, although it goes on"


def test_calls_that_wait_hold_up_no_other(steady: Service) -> None:
    """As many as there are threads wait for a container's turn; dockerd is answered."""
    pod = steady.lab.container("waits")
    root = steady.host.environment["VETHWORK_ROOT"]
    with Locks(f"{root}/locks") as locks:
        locks.world(exclusive=True)
        calls = [start_cni(steady, "DEL", pod, CNI_CONTAINERID=f"waits{number}") for number in range(16)]
        assert steady.post("Plugin.Activate")[0] == 200
        with pytest.raises(subprocess.TimeoutExpired):
            calls[-1].wait(0.5)
        assert steady.post("Plugin.Activate")[0] == 200
        assert not any(each.poll() is not None for each in calls)
        locks.leave_world()
        for each in calls:
            assert (*each.communicate(timeout=20), each.returncode) == ("", "", 0)


def test_what_is_too_long_to_hand_over(steady: Service) -> None:
    before = steady.served()
    heard = launch(steady.host, "oci", stdin="x" * (17 << 20))
    assert heard == Heard(1, "", "vethwork-oci: the container's state: longer than 4194304 bytes\n")
    assert steady.served() == before


# The service ends in the middle --------------------------------------------------------------------------------------------


def start_cni(service: Service, verb: str, pod: Machine, **more: str) -> subprocess.Popen[str]:
    """A call in a process of its own, that has been told everything."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-IS", "-c", LAUNCHER.format(source=SOURCE, tool="cni")]
    made = service.host.popen(command, env=cni(verb, pod, **more), **pipes)
    assert made.stdin is not None
    made.stdin.write(pod_network())
    made.stdin.close()
    made.stdin = None
    return made


def test_the_service_is_killed_while_a_call_waits(service: Service) -> None:
    pod, root = service.lab.container("pod"), service.host.environment["VETHWORK_ROOT"]
    with Locks(f"{root}/locks") as locks:
        locks.world(exclusive=True)
        calling = start_cni(service, "ADD", pod)
        with pytest.raises(subprocess.TimeoutExpired):
            calling.wait(0.5)
        service.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            calling.wait(0.5)
        locks.leave_world()
    out, err = calling.communicate(timeout=20)
    assert (calling.returncode, err) == (0, "")
    assert json.loads(out)["ips"][0]["address"] == "10.7.0.2/24"


def test_the_service_is_killed_at_any_moment(service: Service) -> None:
    """What the runtime does then is right: a DEL after an ADD that failed, and nothing is left."""
    pod = service.lab.container("pod")
    good = 0
    for delay in (0.0, 0.015, 0.03, 0.045, 0.07):
        calling = start_cni(service, "ADD", pod)
        time.sleep(delay)
        service.kill()
        out, err = calling.communicate(timeout=20)
        assert err == ""
        if calling.returncode == 0:
            good += 1
            assert launch(service.host, "cni", stdin=pod_network(), environ=cni("CHECK", pod)).status == 0
        else:
            said = json.loads(out)[
                "msg"
            ]  # it had settled: there is such a container, or it has such an interface
            assert "there is" in said or "already" in said, out
        service.start()
        assert launch(service.host, "cni", stdin=pod_network(), environ=cni("DEL", pod)) == Heard(0, "", "")
        assert eventually(lambda: links(pod).keys() <= {"lo"}), "the kernel may take a moment to delete it"
        assert eventually(lambda: service.metrics()["vethwork_intents"] == 0)
        assert service.metrics()["vethwork_containers"] == 0
    assert good, "not one ADD went through"
    assert not service.metrics().get('vethwork_leases{network="blue"}')


def test_the_service_settles_and_is_killed_before_it_says_so(service: Service) -> None:
    """The repeat is told that the interface exists, and the DEL that follows takes it away."""
    service.stop()
    pod = service.lab.container("pod")
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(service.run)
        listener.listen()
        calling = pool.submit(launch, service.host, "cni", stdin=pod_network(), environ=cni("ADD", pod))
        made, _ = listener.accept()
        with made:
            assert made.recv(1 << 20).startswith(b"POST /call/cni?")
            environ = cni("ADD", pod) | {"VETHWORK_RUN": f"{service.lab.directory}/run2"}
            assert launch(service.host, "cni", stdin=pod_network(), environ=environ).status == 0
        heard = calling.result(20)
    os.unlink(service.run)
    assert (heard.status, heard.err) == (1, "")
    assert "eth0" in json.loads(heard.out)["msg"]
    assert launch(service.host, "cni", stdin=pod_network(), environ=cni("DEL", pod)) == Heard(0, "", "")
    assert links(pod).keys() <= {"lo"}, "without the service, the one who detaches waits for the kernel"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n0 10 0\nhalf",
        b"HTTP/1.1 200 OK\r\n\r\nnonsense\n",
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n0 0 0\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_answer(lab: Lab, answer: bytes) -> None:
    run = lab.host.environment["VETHWORK_RUN"]
    os.makedirs(run, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(f"{run}/service.sock")
        listener.listen()
        calling = pool.submit(launch, lab.host, "cni", stdin="nonsense", environ={"CNI_COMMAND": "STATUS"})
        made, _ = listener.accept()
        with made:
            made.recv(1 << 16)
            made.sendall(answer)
        heard = calling.result(20)
    assert (heard.status, json.loads(heard.out)["code"]) == (1, 6)


def test_a_restart_loses_nothing(service: Service) -> None:
    pod = service.lab.container("pod")
    assert launch(service.host, "cni", stdin=pod_network(), environ=cni("ADD", pod)).status == 0
    service.stop()
    assert launch(service.host, "cni", stdin=pod_network(), environ=cni("CHECK", pod)).status == 0
    service.start()
    assert launch(service.host, "cni", stdin=pod_network(), environ=cni("DEL", pod)) == Heard(0, "", "")
    assert service.served() == 1


# What a kept engine must not remember ----------------------------------------------------------------------------------------


def test_a_bridge_that_was_made_anew_meanwhile_is_the_one_that_is_used(service: Service) -> None:
    first, second = service.lab.container("first"), service.lab.container("second")
    for _ in range(16):  # by every thread, so that each has seen the bridge
        assert launch(service.host, "cni", stdin=pod_network(), environ=cni("ADD", first)).status == 0
        assert launch(service.host, "cni", stdin=pod_network(), environ=cni("DEL", first)).status == 0
    (bridge,) = [
        name
        for name, each in links(service.host).items()
        if "linkinfo" in each and each["linkinfo"]["info_kind"] == "bridge"
    ]
    service.host.run(["ip", "link", "del", bridge])
    heard = launch(service.host, "cni", stdin=pod_network(), environ=cni("ADD", second))
    assert heard.status == 0, heard
    port = next(each for each in links(service.host).values() if each.get("master") == bridge)
    assert port["operstate"] == "UP"
    assert second.ping("10.7.0.1")


def test_a_path_that_leads_to_another_namespace_now(service: Service, tmp_path: Path) -> None:
    first, second, path = service.lab.container("first"), service.lab.container("second"), tmp_path / "netns"
    for pod in (first, second):
        path.unlink(missing_ok=True)
        path.symlink_to(pod.path)
        environ = cni("ADD", pod) | {"CNI_NETNS": str(path)}
        assert launch(service.host, "cni", stdin=pod_network(), environ=environ).status == 0
        assert "eth0" in links(pod)
        environ["CNI_COMMAND"] = "DEL"
        assert launch(service.host, "cni", stdin=pod_network(), environ=environ).status == 0


def test_nothing_of_a_container_stays_open(service: Service) -> None:
    """A namespace would live as long as the service."""

    own = os.fstat(service.host.fd)

    def are_closed() -> bool:
        directory = f"/proc/{service.process.pid}/fd"
        seen = set()
        for fd in os.listdir(directory):
            with suppress(FileNotFoundError):  # one that it had open for a moment
                status = os.stat(f"{directory}/{fd}")
                seen.add((status.st_dev, status.st_ino))
        return {inode for device, inode in seen if device == own.st_dev} <= {own.st_ino}

    pod = service.lab.container("pod")
    for verb in ("ADD", "ADD", "CHECK", "DEL", "STATUS"):
        launch(service.host, "cni", stdin=pod_network(), environ=cni(verb, pod))
        assert eventually(are_closed)
    launch(service.host, "cni", stdin=pod_network(), environ=cni("ADD", pod))
    other = json.dumps(
        conf(subnets=("10.8.0.0/24",))
    )  # the network is another one already: found out in the middle
    assert launch(service.host, "cni", stdin=other, environ=cni("ADD", pod, "second")).status == 1
    assert eventually(are_closed)


def test_a_service_of_another_user_is_told_nothing(lab: Lab) -> None:
    run = lab.host.environment["VETHWORK_RUN"]
    os.makedirs(run, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{run}/service.sock")
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        listener.settimeout(20)
        heard = launch(lab.host, "cni", stdin="nonsense", environ={"CNI_COMMAND": "STATUS"})
        made, _ = listener.accept()
        with made:
            assert made.recv(1 << 16) == b""
    assert (heard.status, json.loads(heard.out)["code"]) == (1, 6)


def test_a_service_that_too_many_wait_for_is_not_waited_for(lab: Lab) -> None:
    run = lab.host.environment["VETHWORK_RUN"]
    os.makedirs(run, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(f"{run}/service.sock")
        listener.listen(0)
        waiting.connect(f"{run}/service.sock")
        heard = launch(lab.host, "cni", stdin="nonsense", environ={"CNI_COMMAND": "STATUS"})
    assert (heard.status, json.loads(heard.out)["code"]) == (1, 6)
