"""``vethwork serve`` as a process: its socket, its clients, good and bad, and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import ECONNREFUSED
from typing import TYPE_CHECKING

import pytest

from tests.kernel.libnetwork import new_id
from tests.kernel.service import MIME, Service, serving
from tests.kernel.stage import address, eventually, links
from vethwork.store.locks import Locks
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

    from vethwork.testing.lab import Lab


NOBODY = 65534


def test_it_activates(steady: Service) -> None:
    for body in (b"", b"{}", b"null"):
        said = (200, {"Implements": ["NetworkDriver", "IpamDriver"]}, MIME)
        assert steady.post("Plugin.Activate", body) == said
    assert steady.post("NetworkDriver.GetCapabilities")[1]["Scope"] == "local"


def test_only_root_may_speak(steady: Service) -> None:
    assert stat.S_IMODE(os.stat(steady.path).st_mode) == 0o600
    os.chmod(steady.path, 0o666)
    os.chmod(os.path.dirname(os.path.dirname(steady.path)), 0o755)

    def as_nobody() -> bytes:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with steady.connect() as made:
            try:
                made.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                return made.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    assert steady.host.call(as_nobody) == b""
    assert steady.post("Plugin.Activate")[0] == 200


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("NetworkDriver.CreateNetwork", b"", 400),
        ("NetworkDriver.CreateNetwork", b'{"NetworkID": "a', 400),
        ("NetworkDriver.CreateNetwork", b"[" * 100_000, 400),
        ("NetworkDriver.CreateNetwork", b"\xff\xfe\x00", 400),
        ("NetworkDriver.CreateNetwork", b'{"NetworkID":"' + b"a" * (10 << 20) + b'"}', 400),
        ("NetworkDriver.Nonsense", b"{}", 404),
        ("NetworkDriver.AllocateNetwork", b"{}", 404),
        ("", b"{}", 404),
        ("../../etc/passwd", b"{}", 404),
    ],
    ids=["empty", "truncated", "deep", "binary", "10 MB", "unknown", "swarm", "root", "path"],
)
def test_what_is_no_request(steady: Service, method: str, body: bytes, status: int) -> None:
    got, said, kind = steady.post(method, body)
    assert got == status
    assert "Traceback" not in str(said)
    assert kind != MIME or said["Err"]
    assert steady.post("Plugin.Activate")[0] == 200


def test_a_body_without_end_is_cut_off(steady: Service) -> None:
    with steady.connect() as made, suppress(BrokenPipeError, ConnectionResetError):
        made.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n")
        assert made.recv(100).startswith(b"HTTP/1.1 413")
    with steady.connect() as made, suppress(BrokenPipeError, ConnectionResetError):
        made.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            made.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        raise AssertionError("64 MB were taken")
    assert steady.post("Plugin.Activate")[0] == 200


def test_what_is_no_post(steady: Service) -> None:
    assert steady.post("Plugin.Activate", verb="GET")[0] == 405


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0" * 1000,
        b"nonsense\r\n\r\n",
        b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /Plugin.Activate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /Plugin.Activate HTTP/9.9\r\n\r\n",
        b"X: " + b"y" * 1_000_000,
    ],
    ids=["nothing", "zeros", "nonsense", "length", "negative", "chunks", "version", "header"],
)
def test_what_is_no_http(steady: Service, said: bytes) -> None:
    with steady.connect() as made:
        try:
            made.sendall(said)
            made.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in made.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert steady.post("Plugin.Activate")[0] == 200


def test_chunks(steady: Service) -> None:
    """Go sends a body whose length it does not know in chunks (RFC 9112)."""
    with steady.connect() as made:
        made.sendall(
            b"POST /NetworkDriver.DiscoverNew HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        )
        assert made.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_hundred_bad_clients_hold_up_nobody(steady: Service) -> None:
    idle = [steady.connect() for _ in range(100)]
    try:
        for made in idle[:50]:
            made.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 500\r\n\r\n{")
        before = time.monotonic()
        assert steady.post("Plugin.Activate")[0] == 200
        assert time.monotonic() - before < 2
    finally:
        for made in idle:
            made.close()


def test_a_request_that_waits_holds_up_no_other(steady: Service) -> None:
    """One that needs the world alone waits for whoever has it; others are answered meanwhile."""
    root = steady.host.environment["VETHWORK_ROOT"]
    network = {"NetworkID": new_id(), "IPv4Data": [{"Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"}]}
    with Locks(f"{root}/locks") as locks, ThreadPoolExecutor(2) as pool:
        locks.world(exclusive=True)
        waiting = [pool.submit(steady.ask, "NetworkDriver.CreateNetwork", network) for _ in range(2)]
        assert steady.post("Plugin.Activate")[0] == 200
        assert not any(each.done() for each in waiting)
        locks.leave_world()
        assert [each.result(20) for each in waiting] == [{}, {}], "the same network twice is one"
    steady.ask("NetworkDriver.DeleteNetwork", {"NetworkID": network["NetworkID"]})


def test_thirty_networks_and_endpoints_at_once(steady: Service) -> None:
    def one(number: int) -> None:
        network, endpoint = {"NetworkID": new_id()}, {"EndpointID": new_id()}
        data = {"Pool": f"10.60.{number}.0/24", "Gateway": f"10.60.{number}.1/24"}
        steady.ask("NetworkDriver.CreateNetwork", {**network, "IPv4Data": [data]})
        interface = {"Address": f"10.60.{number}.2/24"}
        steady.ask("NetworkDriver.CreateEndpoint", {**network, **endpoint, "Interface": interface})
        steady.ask("NetworkDriver.Join", {**network, **endpoint, "SandboxKey": "/run/docker/netns/x"})
        steady.ask("NetworkDriver.Leave", {**network, **endpoint})
        steady.ask("NetworkDriver.DeleteEndpoint", {**network, **endpoint})
        steady.ask("NetworkDriver.DeleteNetwork", network)

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(one, range(30)))
    assert set(links(steady.host)) == {"lo", "eth0"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(service: Service, number: int) -> None:
    with service.connect() as idle:
        idle.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 500\r\n\r\n{")
        assert service.stop(number) == ""
    assert service.process.returncode == 0
    assert not os.path.exists(service.path)


def test_a_request_that_is_worked_on_is_answered_before_the_end(service: Service) -> None:
    root = service.host.environment["VETHWORK_ROOT"]
    network = {"NetworkID": new_id(), "IPv4Data": [{"Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"}]}
    with Locks(f"{root}/locks") as locks, ThreadPoolExecutor(1) as pool:
        locks.world(exclusive=True)
        waiting = pool.submit(service.ask, "NetworkDriver.CreateNetwork", network)
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            with socket.socket(socket.AF_UNIX) as knocking:
                return knocking.connect_ex(service.path) == ECONNREFUSED

        assert eventually(is_refused), "whoever comes now need not wait"
        assert not waiting.done()
        locks.leave_world()
        assert waiting.result(20) == {}
    assert service.stop() == ""


def test_a_live_socket_is_refused(service: Service) -> None:
    second = service.popen()
    out, _ = second.communicate(timeout=20)
    assert second.returncode == 4
    assert "another process does" in out
    assert service.post("Plugin.Activate")[0] == 200


def test_a_stale_socket_is_replaced(service: Service) -> None:
    service.process.kill()
    service.process.communicate()
    assert os.path.exists(service.path)
    service.start()
    assert service.post("Plugin.Activate")[0] == 200


def test_what_is_no_socket_is_left_alone(service: Service) -> None:
    service.stop()
    with open(service.path, "w", encoding="ascii") as file:
        file.write("precious")
    out, _ = service.popen().communicate(timeout=20)
    assert "is no socket" in out
    with open(service.path, encoding="ascii") as file:
        assert file.read() == "precious"


def test_of_two_that_start_at_once_one_serves(service: Service) -> None:
    service.process.kill()
    service.process.communicate()
    both = [service.popen(), service.popen()]
    assert eventually(lambda: any(each.poll() is not None for each in both))
    loser = next(each for each in both if each.poll() is not None)
    assert loser.returncode == 4
    assert service.post("Plugin.Activate")[0] == 200
    for each in both:
        each.kill()
        each.communicate()


def test_somebody_else_s_socket_is_not_taken_away(service: Service) -> None:
    os.unlink(service.path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(service.path)
        service.stop()
        assert os.path.exists(service.path)


def test_what_was_made_is_on_record_after_a_restart(service: Service) -> None:
    """Docker sends no network again; and it takes leave of endpoints that we have had before."""
    ids = {"NetworkID": new_id(), "EndpointID": new_id()}
    data = {"Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"}
    service.ask("NetworkDriver.CreateNetwork", {"NetworkID": ids["NetworkID"], "IPv4Data": [data]})
    service.process.kill()
    service.process.communicate()
    service.start()
    service.ask("NetworkDriver.CreateEndpoint", ids | {"Interface": {"Address": "10.55.0.2/24"}})
    service.stop()
    service.start()
    joined = service.ask("NetworkDriver.Join", ids | {"SandboxKey": "/run/docker/netns/x"})
    assert joined["InterfaceName"]["SrcName"] in links(service.host)
    service.stop()
    service.start()
    service.ask("NetworkDriver.Leave", ids)
    service.ask("NetworkDriver.DeleteEndpoint", ids)
    service.ask("NetworkDriver.DeleteNetwork", {"NetworkID": ids["NetworkID"]})
    assert set(links(service.host)) == {"lo", "eth0"}


def test_a_request_that_is_killed_is_undone_by_the_next(service: Service) -> None:
    """Whenever it dies, what the next one finds is whole."""
    ids = {"NetworkID": new_id(), "EndpointID": new_id()}
    data = {"Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"}
    body = json.dumps({"NetworkID": ids["NetworkID"], "IPv4Data": [data]}).encode()
    for delay in (0.0, 0.002, 0.004, 0.008, 0.016, 0.03):

        def send() -> None:
            with suppress(OSError, http.client.HTTPException):
                service.post("NetworkDriver.CreateNetwork", body)

        client = threading.Thread(target=send)
        client.start()
        time.sleep(delay)
        service.process.kill()
        service.process.communicate()
        client.join()
        service.start()
        service.ask("NetworkDriver.CreateNetwork", json.loads(body))
        service.ask("NetworkDriver.DeleteNetwork", {"NetworkID": ids["NetworkID"]})
        assert set(links(service.host)) == {"lo", "eth0"}


def test_systemd_is_told(service: Service, tmp_path: Path) -> None:
    service.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(10)
        systemd.bind(str(tmp_path / "notify"))
        service.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert systemd.recv(100) == b"READY=1"
        service.stop()
        assert systemd.recv(100) == b"STOPPING=1"


def test_a_damaged_state_file_is_told_and_survived(service: Service) -> None:
    """Told to whoever meets it first: this client, or the guard, who tells the log."""
    path = f"{service.host.environment['VETHWORK_ROOT']}/state.db"
    nonsense = f"{path}.new"
    with open(nonsense, "wb") as file:
        file.write(b"nonsense" * 1000)
    for each in (f"{path}-wal", f"{path}-shm"):
        os.unlink(each)
    os.rename(nonsense, path)
    request = json.dumps({"NetworkID": new_id()}).encode()
    status, said, _ = service.post("NetworkDriver.DeleteNetwork", request)
    assert status == 200
    assert service.post("NetworkDriver.DeleteNetwork", request)[1] == {}
    told = said.get("Err", "") + service.stop()
    assert f"read {path}: file is not a database (kept as {path}.damaged-1;" in told
    assert "Traceback" not in told


def test_what_it_has_inherited_is_closed(service: Service, tmp_path: Path) -> None:
    """But for its streams, and for what systemd hands over."""
    service.stop()
    for name in ("given", "leaked"):
        (tmp_path / name).touch()
    said = tmp_path / "said"
    script = f"""exec 3<{tmp_path}/given 7<{tmp_path}/leaked 9<{tmp_path}/leaked 0<&- 2<&- >{said}
        LISTEN_FDS=1 LISTEN_PID=$$ exec {sys.executable} -m vethwork serve --docker {service.path}"""
    started = service.host.popen(["sh", "-c", script], env={"PYTHONPATH": SOURCE})
    assert eventually(lambda: said.exists() and said.read_text().startswith("listening at"))
    directory = f"/proc/{started.pid}/fd"
    found: dict[int, str] = {}
    for fd in os.listdir(directory):
        with suppress(FileNotFoundError):  # one that it had open for a moment
            found[int(fd)] = os.readlink(f"{directory}/{fd}")
    assert [found[fd] for fd in range(4)] == [os.devnull, str(said), os.devnull, f"{tmp_path}/given"]
    assert f"{tmp_path}/leaked" not in found.values()
    assert os.readlink(f"/proc/{started.pid}/cwd") == "/"
    started.terminate()
    assert started.wait(20) == 0


# Metrics -----------------------------------------------------------------------------------------------------------------


def counted(service: Service, name: str, **labels: str) -> float:
    """One number."""
    said = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return service.metrics()[f"{name}{{{said}}}" if said else name]


@pytest.mark.parametrize("version", [4, 6])
def test_metrics_tell_what_there_is_and_what_passed(service: Service, version: int) -> None:
    host, subnet = service.host, ("10.9.0.0/24", "fd09::/64")[version == 6]
    host.vethwork("network", "create", "blue", "--subnet", subnet)
    pod, other = service.lab.container("pod"), service.lab.container("other")
    host.vethwork("attach", "pod", "--network", "blue", "--netns", pod.path, "-p", "8000-8009:8000-8009/udp")
    host.vethwork("attach", "other", "--network", "blue", "--netns", other.path)
    assert counted(service, "vethwork_containers") == 2
    assert counted(service, "vethwork_endpoints", network="blue") == 2
    assert counted(service, "vethwork_leases", network="blue") == 2
    assert counted(service, "vethwork_published_ports", protocol="udp") == 10
    assert counted(service, "vethwork_intents") == 0

    def bytes_of(kind: str, **labels: str) -> tuple[float, float]:
        found = [
            counted(service, f"vethwork_{kind}_bytes_total", direction=way, **labels) for way in ("in", "out")
        ]
        return found[0], found[1]

    names = {"network": "blue", "container": "pod", "interface": "eth0"}
    before = bytes_of("endpoint", **names), bytes_of("network", network="blue")
    host.run(["ping", "-c", "5", "-i", "0.01", "-s", "1000", address(pod, version)])
    after = bytes_of("endpoint", **names), bytes_of("network", network="blue")
    for zero, one in zip(before, after, strict=True):
        assert all(5000 < late - early < 6000 for early, late in zip(zero, one, strict=True)), (zero, one)
    gone = 'vethwork_endpoint_bytes_total{container="pod",direction="in",interface="eth0",network="blue"}'
    host.vethwork("detach", "pod")
    assert gone not in service.metrics()


def test_metrics_tell_how_long_calls_took(service: Service) -> None:
    service.post("Plugin.Activate")
    service.post("NetworkDriver.Nonsense", b"{}")
    service.post("NetworkDriver.CreateEndpoint", b"{}")
    found = service.metrics()
    name = 'vethwork_call_seconds_count{{outcome="{}",tool="docker",verb="{}"}}'.format
    assert found[name("ok", "Plugin.Activate")] == 1
    assert found[name("error", "other")] == 1
    assert found[name("error", "NetworkDriver.CreateEndpoint")] == 1
    buckets = [
        n for key, n in found.items() if key.startswith("vethwork_call_seconds_bucket") and "Activate" in key
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1


@pytest.mark.parametrize("at", ["127.0.0.1:9273", "[::1]:9273"])
def test_metrics_on_loopback_are_metrics_only(at: str) -> None:
    with serving("--metrics", at) as service:
        body = service.host.run(["curl", "-sg", f"http://{at}/metrics"]).stdout
        assert "vethwork_containers 0.0" in body.splitlines()

        def status(path: str, *options: str) -> str:
            command = ["curl", "-sg", "-o", "/dev/null", "-w", "%{http_code}", *options, f"http://{at}{path}"]
            return service.host.run(command).stdout

        assert [status("/"), status("/call/cni", "-d", "x"), status("/Plugin.Activate", "-d", "x")] == [
            "404"
        ] * 3
        assert [status("/metrics", "-d", "x"), status("/metrics", "-I")] == ["405", "200"]
        assert service.stop() == ""


@pytest.mark.parametrize(
    "at", ["0.0.0.0:9273", "[::]:9273", "192.0.2.1:9273", "127.0.0.1", "localhost:1", "127.0.0.1:x"]
)
def test_metrics_are_for_this_machine(lab: Lab, at: str) -> None:
    said = lab.host.vethwork("serve", "--no-docker", "--metrics", at, check=False)
    assert (said.returncode, "Traceback" in said.stderr) == (2, False), said.stderr
    assert any(why in said.stderr for why in ("is not a loopback", "is not ADDRESS:PORT", "not an IPv4")), (
        said
    )


def test_without_docker(lab: Lab) -> None:
    serving_ = lab.host.popen(
        [sys.executable, "-m", "vethwork", "serve", "--no-docker"],
        env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert serving_.stdout is not None
    assert serving_.stdout.readline() == f"listening at {lab.host.environment['VETHWORK_RUN']}/service.sock\n"
    serving_.terminate()
    assert serving_.communicate(timeout=20)[0] == ""
