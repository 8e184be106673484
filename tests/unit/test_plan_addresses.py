"""IPAM: one address for one container, whatever comes and goes; and subnets that overlap nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Address, Interface, Prefix
from vethwork.model.container import Range
from vethwork.model.names import IfName, Name
from vethwork.model.network import Network, Subnet
from vethwork.plan.ipam import (
    POOL,
    POOL_LENGTH,
    bounds,
    check_static,
    find_free,
    find_subnet,
    local_prefix,
    usable,
)
from vethwork.plan.pools import choose_pool

if TYPE_CHECKING:
    from collections.abc import Iterator


def subnet(prefix: str, gateway: str = "", pool: str = "") -> Subnet:
    """Build one; an empty ``gateway`` is none, an empty ``pool`` the whole of it."""
    parsed = Prefix.parse(prefix)
    return Subnet(parsed, Address.parse(gateway) if gateway else None, Prefix.parse(pool) if pool else parsed)


class Leases:
    """What is on lease, and how much of it was looked at."""

    def __init__(self, *addresses: Address) -> None:
        self.held = set(addresses)
        self.read = 0

    def __call__(self, first: Address, last: Address) -> Iterator[Address]:
        for each in sorted(each for each in self.held if not (each < first or last < each)):
            self.read += 1
            yield each


def fill(where: Subnet, asked: tuple[Range, ...] = ()) -> list[str]:
    """Every address that is given out, in order, until there is none."""
    leases, last, found = Leases(), None, []
    while (last := find_free(where, last, leases, asked)) is not None:
        leases.held.add(last)
        found.append(str(last))
    return found


@pytest.mark.parametrize(
    ("where", "given_out"),
    [
        (subnet("10.0.0.0/29"), [f"10.0.0.{n}" for n in range(1, 7)]),
        (subnet("10.0.0.0/29", "10.0.0.1"), [f"10.0.0.{n}" for n in range(2, 7)]),
        (subnet("10.0.0.0/29", "10.0.0.4"), [f"10.0.0.{n}" for n in (1, 2, 3, 5, 6)]),
        (subnet("10.0.0.0/29", "10.0.0.6"), [f"10.0.0.{n}" for n in range(1, 6)]),
        (subnet("10.0.0.0/30", "10.0.0.1"), ["10.0.0.2"]),
        (subnet("10.0.0.0/31"), ["10.0.0.0", "10.0.0.1"]),
        (subnet("10.0.0.0/31", "10.0.0.0"), ["10.0.0.1"]),
        (subnet("10.0.0.0/32"), ["10.0.0.0"]),
        (subnet("fd00::/126", "fd00::1"), ["fd00::2", "fd00::3"]),
        (subnet("fd00::/127"), ["fd00::", "fd00::1"]),
        (subnet("fd00::/128"), ["fd00::"]),
        (subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.64/30"), [f"10.0.0.{n}" for n in range(64, 68)]),
        (subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.0/30"), ["10.0.0.2", "10.0.0.3"]),
        (subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.4/30"), ["10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        (subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.0/32"), []),
        (subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.1/32"), []),
        (subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.7/32"), []),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_subnet_has_to_give(where: Subnet, given_out: list[str]) -> None:
    assert fill(where) == given_out


def test_what_is_asked_for_narrows_the_choice_and_may_lie_outside_the_pool() -> None:
    where = subnet("10.0.0.0/28", "10.0.0.1", "10.0.0.8/29")

    def span(first: str, last: str) -> Range:
        return Range(Address.parse(first), Address.parse(last))

    assert fill(where, (span("10.0.0.0", "10.0.0.3"),)) == ["10.0.0.2", "10.0.0.3"]
    two = (span("10.0.0.2", "10.0.0.2"), span("10.0.0.14", "10.0.0.15"))
    assert fill(where, two) == ["10.0.0.2", "10.0.0.14"]
    assert fill(where, (span("10.1.0.0", "10.1.0.3"), span("fd00::2", "fd00::3"))) == fill(where)


def test_what_is_kept_free_is_nobodys() -> None:
    held = [Address.parse("10.0.0.2"), Address.parse("10.0.0.4"), Address.parse("fd00::3")]
    found = [
        find_free(subnet("10.0.0.0/29", "10.0.0.1"), last, Leases(), (), held) for last in (None, held[0])
    ]
    assert [str(each) for each in found] == ["10.0.0.3", "10.0.0.3"]


def test_the_next_one_is_sought_after_the_last_that_was_given_and_then_from_the_start() -> None:
    where, leases = subnet("10.0.0.0/29", "10.0.0.1"), Leases()

    def after(last: str) -> str:
        return str(find_free(where, Address.parse(last), leases))

    assert after("10.0.0.3") == "10.0.0.4"
    assert after("10.0.0.6") == "10.0.0.2"
    leases.held = {Address.parse("10.0.0.5"), Address.parse("10.0.0.6"), Address.parse("10.0.0.2")}
    assert after("10.0.0.4") == "10.0.0.3"
    assert after("10.9.9.9") == "10.0.0.3"  # the cursor of another subnet


def test_two_thousand_addresses_do_not_read_the_leases_over_and_over() -> None:
    where, leases, last = subnet("10.0.0.0/20", "10.0.0.1"), Leases(), None
    for _ in range(2000):
        last = find_free(where, last, leases)
        assert last is not None
        leases.held.add(last)
    assert leases.read <= 4000


PREFIXES = ["10.0.0.0/28", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "fd00::/124", "fd00::/127"]


class Ipam(RuleBasedStateMachine):
    """Leases come and go in any order; nobody is given what somebody has."""

    leased = Bundle("leased")

    @initialize(
        prefix=st.sampled_from(PREFIXES), gateway=st.integers(0, 15), pool=st.integers(0, 4), data=st.data()
    )
    def begin(self, prefix: str, gateway: int, pool: int, data: st.DataObject) -> None:
        parsed = Prefix.parse(prefix)
        low, high = usable(parsed)
        place = low.value + gateway
        address = Address(parsed.version, place) if place <= high.value else None
        inner = data.draw(st.integers(0, parsed.size - 1))
        narrow = Interface(
            parsed.address + inner, min(parsed.length + pool, {4: 32, 6: 128}[parsed.version])
        ).prefix
        self.subnet = Subnet(parsed, address, narrow if pool else parsed)
        self.leases = Leases()
        self.last: Address | None = None

    @rule(target=leased)
    def lease(self) -> Address | None:
        found = find_free(self.subnet, self.last, self.leases)
        low, high = bounds(self.subnet)
        span = range(low.value, high.value + 1)
        free = {
            value
            for value in span
            if Address(low.version, value) not in {*self.leases.held, self.subnet.gateway}
        }
        assert (found is None) == (not free)
        if found is not None:
            assert found.value in free
            assert found in self.subnet.prefix
            assert found in self.subnet.pool
            later = [value for value in free if self.last is not None and value > self.last.value]
            assert found.value == min(later or free)
            self.leases.held.add(found)
            self.last = found
        return found

    @rule(address=consumes(leased))
    def release(self, address: Address | None) -> None:
        if address is not None:
            self.leases.held.remove(address)

    @rule(offset=st.integers(0, 15))
    def somebody_asks_for_one(self, offset: int) -> None:
        address = self.subnet.prefix.address + offset
        if address in self.subnet.prefix and address != self.subnet.gateway:
            self.leases.held.add(address)
            self.last = address

    @invariant()
    def the_gateway_is_nobodys(self) -> None:
        if hasattr(self, "leases"):
            assert self.subnet.gateway not in self.leases.held


Ipam.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestIpam = Ipam.TestCase


# One address in particular -------------------------------------------------------------------------------------------

WHERE = subnet("10.0.0.0/29", "10.0.0.1", "10.0.0.4/30")
NETWORK = Network(
    "00", Name("web"), "bridge", IfName("br0"), (WHERE,), 1500, held=(Address.parse("10.0.0.5"),)
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holder", "why"),
    [
        ("10.0.0.0", "", "address 10.0.0.0: is the network's or the broadcast address of 10.0.0.0/29"),
        ("10.0.0.7", "", "address 10.0.0.7: is the network's or the broadcast address of 10.0.0.0/29"),
        ("10.0.0.1", "", "address 10.0.0.1: is the gateway of network web"),
        ("10.0.0.5", "", "address 10.0.0.5: is kept free of containers on network web"),
        ("10.0.0.2", "db", "address 10.0.0.2: is held by container db"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(text: str, holder: str, why: str) -> None:
    with pytest.raises((RequestError, ConflictError)) as refused:
        check_static(NETWORK, WHERE, Address.parse(text), holder)
    assert str(refused.value) == why


@pytest.mark.parametrize("text", ["10.0.0.2", "10.0.0.6"])
def test_an_address_may_be_asked_for_outside_the_pool(text: str) -> None:
    assert check_static(NETWORK, WHERE, Address.parse(text), "") == Interface.parse(f"{text}/29")


# Subnets -------------------------------------------------------------------------------------------------------------

TAKEN = st.lists(
    st.builds(
        lambda pool, offset, length: Interface(pool.address + offset % pool.size, length).prefix,
        st.sampled_from(POOL),
        st.integers(0, 1 << 18),
        st.integers(14, 32),
    ),
    max_size=6,
)


@settings(max_examples=25)
@given(TAKEN, st.sampled_from([POOL_LENGTH, 30]))
def test_a_subnet_overlaps_nothing_and_is_the_first_that_does_not(taken: list[Prefix], length: int) -> None:
    found = find_subnet(length, iter(taken))
    assert found.length == length
    assert not any(found.overlaps(other) for other in taken)
    assert any(found.overlaps(pool) for pool in POOL)
    before = [pool for pool in POOL if pool.address < found.address and not pool.overlaps(found)]
    here = next(pool for pool in POOL if pool.overlaps(found))
    assert all(any(other.overlaps(pool) for other in taken) for pool in before)
    if found.address != here.address:
        previous = Prefix(found.address + -found.size, length)
        assert any(previous.overlaps(other) for other in taken)


def test_subnets_that_follow_each_other_fill_the_pools() -> None:
    taken: list[Prefix] = []
    for _ in range(3):
        taken.append(find_subnet(POOL_LENGTH, taken))
    assert [str(each) for each in taken] == ["10.76.0.0/22", "10.76.4.0/22", "10.76.8.0/22"]
    assert str(find_subnet(22, POOL[:1])) == "172.24.0.0/22"
    assert str(find_subnet(22, POOL[:2])) == "192.168.0.0/22"


def test_where_every_subnet_is_taken_it_says_so() -> None:
    with pytest.raises(
        ConflictError, match=r"every /22 of 10\.76\.0\.0/14, .* overlaps a route or a network"
    ):
        find_subnet(22, POOL)


def test_the_pools_are_apart() -> None:
    assert not any(one.overlaps(other) for one, other in pairwise(POOL))


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_local_prefix_is_random_within_fd00(network_id: str) -> None:
    prefix = local_prefix(network_id)
    assert prefix.length == 64
    assert prefix.address.packed[:1] == b"\xfd"
    assert prefix.address.packed[1:6].hex() == network_id[:10]
    assert not any(prefix.address.packed[6:])


# Pools that somebody wants -------------------------------------------------------------------------------------------

SEED = "0123456789abcdef" * 2


def parsed(*texts: str) -> list[Prefix]:
    """Read several prefixes."""
    return [Prefix.parse(text) for text in texts]


def test_a_pool_is_chosen_where_nobody_names_one() -> None:
    assert choose_pool(None, 6, (), (), SEED) == local_prefix(SEED)
    used, promised = parsed("10.76.0.0/22"), parsed("10.76.4.0/24")
    assert str(choose_pool(None, 4, used, promised, SEED)) == "10.76.8.0/22"


def test_a_pool_may_be_asked_for_again() -> None:
    (wanted,) = parsed("10.0.0.0/24")
    assert choose_pool(wanted, 4, (), [wanted], SEED) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fd00::/64", "request pool fd00::/64: is not IPv4"),
        ("10.0.0.0/31", "request pool 10.0.0.0/31: is too small"),
        ("224.0.0.0/24", "request pool 224.0.0.0/24: is no range for hosts"),
        ("127.0.0.0/24", "request pool 127.0.0.0/24: is no range for hosts"),
        ("0.0.0.0/24", "request pool 0.0.0.0/24: is no range for hosts"),
        ("10.1.0.0/24", "request pool 10.1.0.0/24: overlaps 10.1.0.0/16, which is in use"),
        ("10.2.0.0/25", "request pool 10.2.0.0/25: overlaps 10.2.0.0/24, which is in use"),
    ],
)
def test_a_pool_that_cannot_be_had_is_refused(text: str, why: str) -> None:
    with pytest.raises((RequestError, ConflictError)) as refused:
        choose_pool(Prefix.parse(text), 4, parsed("10.1.0.0/16"), parsed("10.2.0.0/24"), SEED)
    assert str(refused.value) == why
