"""What a machine of a lab can do: run, call, serve, ask, listen, and say what no honest machine would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from vethwork.errors import ConflictError, KernelRefused
from vethwork.testing import frames
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine

BOTH = pytest.mark.parametrize("version", ["v4", "v6"])
LINK_LOCAL = "fe80::ff:fe00:66"
EVIL_MAC = "02:00:00:00:00:66"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for all: every test takes ports of its own."""
    with Lab() as made:
        yield made


def address(machine: Machine, version: str) -> str:
    return machine.v4 if version == "v4" else machine.v6


# Programs and functions --------------------------------------------------------------------------------------------------


def test_a_program_runs_on_the_machine(lab: Lab, tool: Callable[[str], str]) -> None:
    routes = json.loads(lab.host.run([tool("ip"), "-j", "route", "show", "default"]).stdout)
    assert [route["gateway"] for route in routes] == ["192.0.2.1"]


def test_a_program_that_fails_says_where_and_why(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab.host.run(["sh", "-c", "echo because >&2; exit 3"])
    assert caught.value.returncode == 3
    assert caught.value.__notes__ == ["on host, it said:\nbecause\n"]
    assert lab.host.run(["false"], check=False).returncode == 1


def test_a_program_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.host.run(["sleep", "1000"], timeout=0.05)


def test_a_program_reads_what_it_is_given(lab: Lab) -> None:
    assert lab.host.run(["cat"], stdin="words").stdout == "words"


def test_a_function_runs_on_the_machine(lab: Lab) -> None:
    assert lab.host.call(lambda: os.readlink("/proc/self/ns/net")) != os.readlink("/proc/self/ns/net")
    assert lab.host.call(os.getpid) != os.getpid()


def test_a_function_raises_what_it_raised(lab: Lab) -> None:
    def fail() -> None:
        raise KernelRefused("create bridge b0", 17, "it is there")

    with pytest.raises(KernelRefused, match="create bridge b0: EEXIST: it is there") as caught:
        lab.host.call(fail)
    assert "in fail" in caught.value.__notes__[0]


def test_an_exception_that_cannot_travel_is_told_in_words(lab: Lab) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("far away")

    with pytest.raises(RuntimeError, match="Local: far away"):
        lab.host.call(fail)


def test_a_function_that_dies_is_told_from_one_that_fails(lab: Lab) -> None:
    with pytest.raises(ChildProcessError, match="wait status 1792"):
        lab.host.call(lambda: os._exit(7))


def test_a_function_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(TimeoutError):
        lab.host.call(lambda: time.sleep(1000), timeout=0.05)


def test_a_result_does_not_wait_for_what_the_function_left_running(lab: Lab) -> None:
    """As an engine's supervisor is: a child of the child, that holds every descriptor open."""

    def leave_a_child() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        return pid

    os.kill(lab.host.call(leave_a_child), 9)


def test_an_engine_keeps_its_records_on_the_machine(lab: Lab) -> None:
    root, run = lab.host.call(lambda: (os.environ["VETHWORK_ROOT"], os.environ["VETHWORK_RUN"]))
    assert root.startswith(lab.directory)
    assert run.startswith(lab.directory)
    assert root != lab.neighbour.environment["VETHWORK_ROOT"]
    shown = lab.host.run([sys.executable, "-c", "import os; print(os.environ['VETHWORK_ROOT'])"])
    assert shown.stdout.strip() == root


def test_the_command_line_runs_on_the_machine(lab: Lab) -> None:
    assert lab.host.vethwork("--help").stdout.startswith("Usage: vethwork")
    assert lab.host.vethwork("no-such-verb", check=False).returncode == 2


@pytest.mark.parametrize("on", [True, False])
def test_bridged_frames_are_filtered_or_not(
    lab: Lab, on: bool, tool: Callable[[str], str], kernel_option: Callable[[str], None]
) -> None:
    kernel_option("CONFIG_BRIDGE_NETFILTER")
    ours = subprocess.run([tool("sysctl"), "net.bridge"], capture_output=True, check=True, timeout=5).stdout
    lab.host.filter_bridged(on)
    for name in ("iptables", "ip6tables"):
        said = lab.host.run([tool("sysctl"), "-n", f"net.bridge.bridge-nf-call-{name}"]).stdout
        assert said.strip() == str(int(on))
    again = subprocess.run([tool("sysctl"), "net.bridge"], capture_output=True, check=True, timeout=5).stdout
    assert again == ours


# Servers and dialogs -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_server_tells_whom_it_saw(lab: Lab, version: str, protocol: str) -> None:
    server = lab.internet.serve_http() if protocol == "tcp" else lab.internet.serve_udp_echo()
    target = address(lab.internet, version)
    seen = lab.host.connect(target, server.port, protocol, source=(address(lab.host, version), 4444))
    server.stop()
    assert seen == ("internet", address(lab.host, version), 4444, target, server.port, "/")


def test_a_server_answers_from_the_address_that_was_asked(lab: Lab) -> None:
    """Over UDP too, where the kernel would choose by route; a connected socket drops what comes from elsewhere."""
    lab.host.add_address("192.0.2.77/32")
    server = lab.host.serve_udp_echo()
    assert lab.neighbour.connect("192.0.2.77", server.port, "udp").local == "192.0.2.77"
    server.stop()


def test_a_server_listens_where_it_is_told(lab: Lab) -> None:
    server = lab.host.serve_http(bind=lab.host.v4)
    assert lab.neighbour.reaches(lab.host.v4, server.port)
    assert not lab.neighbour.reaches(lab.host.v6, server.port)
    server.stop()
    assert not lab.neighbour.reaches(lab.host.v4, server.port)


def test_a_port_that_is_taken_is_told_at_once(lab: Lab) -> None:
    server = lab.host.serve_http()
    with pytest.raises(OSError, match="in use"):
        lab.host.serve_http(server.port)
    server.stop()


def test_curl_can_ask_too(lab: Lab, tool: Callable[[str], str]) -> None:
    server = lab.host.serve_http()
    url = f"http://{lab.host.v4}:{server.port}/hello"
    said = json.loads(lab.neighbour.run([tool("curl"), "-s", "--max-time", "5", url]).stdout)
    assert (said["peer"], said["question"]) == (lab.neighbour.v4, "/hello")
    fetched = lab.neighbour.fetch(url)
    assert (fetched.status, json.loads(fetched.text)["question"]) == (200, "/hello")
    server.stop()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_dialog_stays_one_flow(lab: Lab, protocol: str) -> None:
    server = lab.host.serve_http() if protocol == "tcp" else lab.host.serve_udp_echo()
    with lab.neighbour.dial(lab.host.v4, server.port, protocol) as dialog:
        first, second = dialog.ask("/one"), dialog.ask("/two")
    server.stop()
    assert (first.question, second.question) == ("/one", "/two")
    assert first.peer_port == second.peer_port


def test_nobody_there_is_told_apart_from_nobody_home(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab.neighbour.connect(lab.host.v4, 9)
    with pytest.raises(TimeoutError):
        lab.neighbour.connect("192.0.2.200", 9, timeout=0.1)


# Frames by hand ----------------------------------------------------------------------------------------------------------


def test_a_tap_hears_what_comes_and_tells_what_did_not(lab: Lab) -> None:
    with lab.host.tap() as tap:
        lab.neighbour.ping(lab.host.v4)
        heard = tap.wait_for(lambda frame: frame.protocol == "icmp")
        assert (heard.source, heard.to, heard.source_port) == (lab.neighbour.v4, lab.host.v4, 8)
        lab.neighbour.ping(lab.host.v4)
        with pytest.raises(TimeoutError, match=r"icmp .*: 192\.0\.2\.3 > 192\.0\.2\.2"):
            tap.wait_for(lambda frame: frame.protocol == "tcp", timeout=0.05)


def test_a_tap_hears_what_goes_out_if_asked(lab: Lab) -> None:
    with lab.neighbour.tap(outgoing=True) as tap:
        lab.neighbour.ping(lab.host.v4)
        assert tap.wait_for(lambda frame: frame.protocol == "icmp").source == lab.neighbour.v4


def test_the_kernel_answers_an_arp_request_by_hand(lab: Lab) -> None:
    with lab.neighbour.tap() as tap:
        tap.send(frames.BROADCAST, EVIL_MAC, frames.arp_request(EVIL_MAC, "192.0.2.66", lab.host.v4))
        answer = tap.wait_for(lambda frame: frame.protocol == "arp" and frame.source_port == 2)
    assert (answer.source, answer.source_mac, answer.to) == (lab.host.v4, str(lab.host.mac()), "192.0.2.66")


@BOTH
def test_the_kernel_answers_an_echo_request_by_hand(lab: Lab, version: str) -> None:
    me, host = address(lab.neighbour, version), address(lab.host, version)
    lab.neighbour.ping(host)  # so that each knows where the other is
    with lab.neighbour.tap() as tap:
        tap.send(str(lab.host.mac()), str(lab.neighbour.mac()), frames.ping(me, host, data=b"by hand"))
        reply = tap.wait_for(lambda frame: frame.data == b"by hand")
    assert (reply.source, reply.to, reply.source_port) == (host, me, 0 if version == "v4" else 129)


@BOTH
def test_a_datagram_by_hand_reaches_a_server(lab: Lab, version: str) -> None:
    server = lab.host.serve_udp_echo()
    me, host = address(lab.neighbour, version), address(lab.host, version)
    lab.neighbour.ping(host)
    with lab.neighbour.tap() as tap:
        datagram = frames.udp(me, 5555, host, server.port, b"by hand")
        tap.send(str(lab.host.mac()), str(lab.neighbour.mac()), datagram)
        answer = tap.wait_for(lambda frame: frame.protocol == "udp" and frame.to_port == 5555)
    server.stop()
    assert json.loads(answer.data)["question"] == "by hand"


@BOTH
def test_a_segment_by_hand_is_answered(lab: Lab, version: str) -> None:
    server = lab.host.serve_http()
    me, host = address(lab.neighbour, version), address(lab.host, version)
    lab.neighbour.ping(host)
    with lab.neighbour.tap() as tap:
        tap.send(str(lab.host.mac()), str(lab.neighbour.mac()), frames.tcp_syn(me, 5556, host, server.port))
        answer = tap.wait_for(lambda frame: frame.protocol == "tcp" and frame.to_port == 5556)
    server.stop()
    syn_and_ack = 0x12
    header = 14 + (20 if version == "v4" else 40)
    assert answer.raw[header + 13] == syn_and_ack


def test_a_router_advertisement_by_hand_is_believed(tool: Callable[[str], str]) -> None:
    """On the plain wire it works, so that a test which shows it dying at a container's port shows something."""
    with Lab() as lab, lab.neighbour.tap() as tap, lab.host.tap() as heard:
        tap.send(
            frames.ALL_NODES_MAC, EVIL_MAC, frames.router_advertisement(LINK_LOCAL, EVIL_MAC, "2001:db8:66::")
        )
        heard.wait_for(lambda frame: frame.protocol == "icmpv6" and frame.source_port == 134)
        routes = lab.host.run([tool("ip"), "-6", "-j", "route", "show", "default", "proto", "ra"]).stdout
        assert [route["gateway"] for route in json.loads(routes)] == [LINK_LOCAL]
        assert any(str(each).startswith("2001:db8:66:") for each in lab.host.addresses)


def test_a_neighbour_advertisement_by_hand_is_believed(tool: Callable[[str], str]) -> None:
    with Lab() as lab, lab.neighbour.tap() as tap, lab.host.tap() as heard:
        lab.host.ping(lab.router.v6)
        lie = frames.neighbour_advertisement(lab.router.v6, lab.host.v6, lab.router.v6, EVIL_MAC)
        tap.send(str(lab.host.mac()), EVIL_MAC, lie)
        heard.wait_for(lambda frame: frame.source_mac == EVIL_MAC)
        shown = json.loads(lab.host.run([tool("ip"), "-6", "-j", "neigh", "show", lab.router.v6]).stdout)
        assert [each["lladdr"] for each in shown] == [EVIL_MAC]


def test_what_comes_before_something_else_is_heard_in_order(lab: Lab) -> None:
    """How to show, without guessing a time, that something does not arrive: send what does arrive after it."""
    with lab.neighbour.tap() as sender, lab.host.tap() as tap:
        for word in (b"first", b"second", b"last"):
            sender.send(str(lab.host.mac()), EVIL_MAC, frames.udp("192.0.2.3", 1, lab.host.v4, 1, word))
        heard = tap.until(lambda frame: frame.data == b"last")
    assert [frame.data for frame in heard if frame.source_mac == EVIL_MAC] == [b"first", b"second", b"last"]


def test_an_interface_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(LookupError, match="host has no interface eth9"):
        lab.host.mac("eth9")
    with pytest.raises(OSError, match="No such device"):
        lab.host.tap("eth9")


def test_errors_of_ours_travel(lab: Lab) -> None:
    def fail() -> None:
        raise ConflictError("port 80: held by web", hint="stop it")

    with pytest.raises(ConflictError, match="held by web"):
        lab.host.call(fail)
