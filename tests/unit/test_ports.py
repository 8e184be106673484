"""Published ports: what ``-p`` takes, what it refuses, and which of two hold a port in common."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vethwork.errors import RequestError
from vethwork.model.address import Address
from vethwork.model.ports import PROTOCOLS, Publish, merged


def publish(protocol: str, host: str, first: int, container: int, count: int = 1) -> Publish:
    """Build one; an empty ``host`` is every address."""
    return Publish(protocol, Address.parse(host) if host else None, first, container, count)


GOOD = {
    "80": publish("tcp", "", 0, 80),
    "80/udp": publish("udp", "", 0, 80),
    "8080:80": publish("tcp", "", 8080, 80),
    "8080:80/tcp": publish("tcp", "", 8080, 80),
    "8080:80/UDP": publish("udp", "", 8080, 80),
    "53:53/udp": publish("udp", "", 53, 53),
    "2905:2905/sctp": publish("sctp", "", 2905, 2905),
    "1:1": publish("tcp", "", 1, 1),
    "65535:65535": publish("tcp", "", 65535, 65535),
    "8000-8099:8000-8099/udp": publish("udp", "", 8000, 8000, 100),
    "8000-8001:80-81": publish("tcp", "", 8000, 80, 2),
    "8080-8080:80": publish("tcp", "", 8080, 80),
    "1-65535:1-65535": publish("tcp", "", 1, 1, 65535),
    "127.0.0.1:8080:80": publish("tcp", "127.0.0.1", 8080, 80),
    "127.0.0.1::80": publish("tcp", "127.0.0.1", 0, 80),
    "0.0.0.0:8080:80": publish("tcp", "0.0.0.0", 8080, 80),
    "192.0.2.1:8000-8001:80-81/udp": publish("udp", "192.0.2.1", 8000, 80, 2),
    "[fd00::1]:8080:80": publish("tcp", "fd00::1", 8080, 80),
    "[fd00::1]::80/udp": publish("udp", "fd00::1", 0, 80),
    "[::]:8080:80": publish("tcp", "::", 8080, 80),
    "[2001:db8::1]:8000-8001:8000-8001": publish("tcp", "2001:db8::1", 8000, 8000, 2),
}


@pytest.mark.parametrize(("text", "meant"), GOOD.items(), ids=GOOD)
def test_what_publish_takes(text: str, meant: Publish) -> None:
    assert Publish.parse(text) == meant


@pytest.mark.parametrize("meant", [each for each in GOOD.values() if each.host_port], ids=str)
def test_it_is_read_as_it_is_printed(meant: Publish) -> None:
    assert Publish.parse(str(meant)) == meant


BAD = {
    "": "'' is not a port, 1 to 65535",
    "0": "'0' is not a port",
    "0:80": "'0' is not a port",
    "80:0": "'0' is not a port",
    "65536:80": "'65536' is not a port",
    "80:65536": "'65536' is not a port",
    "http": "'http' is not a port",
    "80:http": "'http' is not a port",
    "-80": "'' is not a port",
    "80-": "'' is not a port",
    "+80": "'\\+80' is not a port",
    " 80": "' 80' is not a port",
    "80 ": "'80 ' is not a port",
    "80\n": "'80\\\\n' is not a port",
    "8_0": "'8_0' is not a port",
    "٨٠": "is not a port",
    "8²": "is not a port",
    "0x50": "'0x50' is not a port",
    "080000": "'080000' is not a port",
    "1-2-3:1-2-3": "'2-3' is not a port",
    "8099-8000:8099-8000": "the range 8099-8000 runs backwards",
    "8000-8001:80": "the two ranges differ in size",
    "8000:80-81": "the two ranges differ in size",
    "8000-8001:80-82": "the two ranges differ in size",
    "80-81": "a range needs its host ports named",
    "127.0.0.1::80-81": "a range needs its host ports named",
    ":80": "a port is missing before the colon",
    "80:": "'' is not a port",
    "127.0.0.1:80": "'127.0.0.1' is not a port",
    "80:80/": "protocol '' is none of tcp, udp, sctp",
    "80:80/icmp": "protocol 'icmp' is none of",
    "80:80/tcp/udp": "protocol 'tcp/udp' is none of",
    "80:80/tcp ": "protocol 'tcp ' is none of",
    "80:80:80": "address '80': not an IPv4 or IPv6 address",
    "::80": "address '': not an IPv4 or IPv6 address",
    "localhost:80:80": "address 'localhost': not an IPv4 or IPv6 address",
    "0127.0.0.1:80:80": "not an IPv4 or IPv6 address",
    "fd00::1:8080:80": "an IPv6 address goes in brackets",
    "::1:80": "an IPv6 address goes in brackets",
    "[fd00::1:8080:80": "an IPv6 address goes in brackets",
    "[fd00::1]8080:80": "an IPv6 address goes in brackets",
    "[127.0.0.1]:80:80": "an IPv6 address goes in brackets",
    "[]:80:80": "an IPv6 address goes in brackets",
    "[::g]:80:80": "address '::g': not an IPv4 or IPv6 address",
    "[fe80::1%eth0]:80:80": "not an IPv4 or IPv6 address",
    "[::1]:8080:80": "the kernel cannot lead ::1 to a container",
    "[::1]::80": "the kernel cannot lead ::1 to a container",
    "[fe80::1]:80:80": "fe80::1 is not an address that a port can be published on",
    "[ff02::1]:80:80": "ff02::1 is not an address that a port can be published on",
    "[::ffff:127.0.0.1]:80:80": "::ffff:127.0.0.1 is not an address that a port can be published on",
    "224.0.0.1:80:80": "224.0.0.1 is not an address that a port can be published on",
    "255.255.255.255:80:80": "255.255.255.255 is not an address that a port can be published on",
}


@pytest.mark.parametrize(("text", "why"), BAD.items(), ids=[ascii(text) for text in BAD])
def test_what_publish_refuses(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        Publish.parse(text)
    assert str(refused.value).isprintable()


def test_a_refusal_does_not_repeat_a_flood() -> None:
    for text in (
        "8" * 100_000,
        "[" * 100_000,
        ":" * 100_000,
        "80/" + "x" * 100_000,
        "x" * 100_000 + ":80:80",
    ):
        with pytest.raises(RequestError) as refused:
            Publish.parse(text)
        assert len(str(refused.value)) < 400


@given(st.text("0123456789:-/[].atcpudsf", max_size=30))
def test_what_is_taken_is_within_bounds(text: str) -> None:
    try:
        found = Publish.parse(text)
    except RequestError:
        return
    assert found.protocol in PROTOCOLS
    assert found.count == 1 or found.host_port >= 1
    assert found.container_port >= 1
    assert found.container_port + found.count - 1 <= 65535
    assert found.last <= 65535


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (("icmp", None, 80, 80), "protocol 'icmp' is none of"),
        (("tcp", None, -1, 80), "a port is 1 to 65535"),
        (("tcp", None, 65536, 80), "a port is 1 to 65535"),
        (("tcp", None, 80, 0), "a port is 1 to 65535"),
        (("tcp", None, 80, 65536), "a port is 1 to 65535"),
        (("tcp", None, 80, 80, 0), "a port is 1 to 65535"),
        (("tcp", None, 65535, 80, 2), "a port is 1 to 65535"),
        (("tcp", None, 80, 65535, 2), "a port is 1 to 65535"),
        (("tcp", None, 0, 80, 2), "a range needs its host ports named"),
    ],
)
def test_parts_from_outside_are_checked(parts: tuple[str, None, int, int], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        Publish.check(*parts)


def test_what_a_publish_says_of_itself() -> None:
    every, bound = Publish.parse("8000-8009:80-89"), Publish.parse("[fd00::1]:80:80")
    assert (every.last, every.shifted, every.versions) == (8009, True, (4, 6))
    assert (bound.last, bound.shifted, bound.versions) == (80, False, (6,))
    assert Publish.parse("0.0.0.0:80:80").versions == (4,)


# Which two mean the same port ----------------------------------------------------------------------------------------

HOSTS = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]
PUBLISHES = st.builds(
    publish,
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(["", "0.0.0.0", "::", *HOSTS]),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 4),
)


def meant(each: Publish) -> set[tuple[str, str, int]]:
    """Every protocol, address and port that a packet may be sent to and mean this one, on a host of four addresses."""
    at = [host for host in HOSTS if Address.parse(host).version in each.versions]
    if each.host_ip is not None and not each.host_ip.is_any:
        at = [str(each.host_ip)]
    return {(each.protocol, host, port) for host in at for port in range(each.host_port, each.last + 1)}


@given(PUBLISHES, PUBLISHES)
@example(publish("tcp", "", 80, 80), publish("tcp", "::", 80, 80))
@example(publish("tcp", "0.0.0.0", 80, 80), publish("tcp", "::", 80, 80))
@example(publish("tcp", "0.0.0.0", 80, 80), publish("tcp", "10.0.0.1", 80, 80))
@example(publish("tcp", "", 80, 80), publish("tcp", "fd00::1", 80, 80))
def test_two_overlap_if_a_packet_could_mean_either(one: Publish, other: Publish) -> None:
    assert one.overlaps(other) == bool(meant(one) & meant(other))
    assert one.overlaps(other) == other.overlaps(one)


def ways(each: Publish) -> set[tuple[str, str, int, int]]:
    """Which port leads to which."""
    return {
        (each.protocol, str(each.host_ip), each.host_port + offset, each.container_port + offset)
        for offset in range(each.count)
    }


@given(
    st.lists(
        st.builds(Publish, st.sampled_from(["tcp", "udp"]), st.none(), st.integers(1, 6), st.integers(1, 6))
    )
)
def test_neighbours_are_merged_and_lead_where_they_led(publishes: list[Publish]) -> None:
    found = merged(publishes)
    assert set().union(*map(ways, found)) == set().union(*map(ways, publishes))
    assert sum(each.count for each in found) == len(set(publishes))


def test_neighbours_become_one_range() -> None:
    apart = [Publish.parse(text) for text in ("82:82", "80:80", "81:81", "81:81/udp", "83:84", "80:80", "80")]
    assert [str(each) for each in merged(apart)] == ["0:80/tcp", "80-82:80-82/tcp", "83:84/tcp", "81:81/udp"]
