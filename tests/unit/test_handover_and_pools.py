"""Links that somebody else moves, and addresses that are asked for before there is an endpoint: the plans, and the leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit.test_docker_documents import BLUE, ENDPOINT, endpoint_of
from vethwork.engine.ipam import Pool, request_gateway
from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Address, Prefix
from vethwork.model.container import AWAITED, Container, Join
from vethwork.model.network import Network
from vethwork.model.state import AttachSeen, ContainerSeen, NetworkSeen
from vethwork.model.steps import ChangeElements
from vethwork.plan.attach import plan_attach, plan_connect
from vethwork.plan.detach import plan_detach
from vethwork.plan.external_links import plan_hand_over
from vethwork.plan.pools import choose_pool
from vethwork.store.database import Store
from vethwork.store.leases import PROMISED
from vethwork.store.rows import insert

if TYPE_CHECKING:
    from pathlib import Path

    from vethwork.model.plan import Plan

WANTED = Prefix.parse("10.55.0.0/24")


def attached(network: Network = BLUE) -> tuple[Plan, ContainerSeen]:
    seen = NetworkSeen(network, (Address.parse("10.55.0.2"),), (), (), (), ())
    plan = plan_attach(endpoint_of(), AttachSeen((seen,), (), None, "/run/pin"))
    container, endpoint = plan.adds[:2]
    return plan, ContainerSeen(container, (endpoint,), (), (network,), ())  # type: ignore[arg-type]


def test_an_endpoint_that_is_handed_over_has_guards_and_no_link_yet() -> None:
    plan, seen = attached()
    assert [type(step) for step in plan.steps] == [ChangeElements]
    assert (seen.container.netns, seen.container.handed, seen.container.pinned) == (AWAITED, True, False)


def test_the_link_as_commands() -> None:
    plan = plan_hand_over(attached()[1])
    assert plan.commands() == (
        "ip link del vw2e760ed04b00",
        "ip link add vw2e760ed04b00 mtu 1500 group 1986360424 type veth"
        " peer name vwi2e760ed04b00 address 02:76:0a:37:00:02 mtu 1500",
        "ip link set vw2e760ed04b00 master vw-63b3fc9a5790 up",
        "bridge link set dev vw2e760ed04b00 hairpin on",
    )
    assert [command for step in plan.backward() for command in step.describe()] == [
        "ip link del vw2e760ed04b00"
    ]
    assert len(f"vwi{ENDPOINT[:10]}00") <= 15


def test_an_internal_network_needs_no_hairpin() -> None:
    plan = plan_hand_over(attached(BLUE.replace(internal=True))[1])
    assert not [command for command in plan.commands() if "hairpin" in command]


def test_its_end_is_as_everybody_s() -> None:
    commands = plan_detach(attached()[1], ()).commands()
    assert commands[-1] == "ip link del vw2e760ed04b00"


def test_only_who_configures_it_may_connect_it() -> None:
    seen = attached()[1]
    with pytest.raises(RequestError, match="made for docker"):
        plan_connect(Join(BLUE.name), seen, NetworkSeen(BLUE, (None,), (), (), (), ()))
    ours = seen.replace(container=seen.container.replace(handed=False))
    with pytest.raises(RequestError, match="are ours"):
        plan_hand_over(ours)


@pytest.mark.parametrize("driver", ["p2p", "macvlan"])
def test_only_a_bridge_has_links_to_hand_over(driver: str) -> None:
    with pytest.raises(RequestError, match="only a bridge"):
        attached(BLUE.replace(driver=driver))


# Pools.

prefixes = some.builds(
    lambda value, length: Prefix(Address(4, value << 8 & (0xFFFFFFFF << (32 - length))), length),
    some.integers(0x0A0000, 0x0AFFFF),
    some.integers(10, 28),
)


@given(some.lists(prefixes, max_size=6), some.lists(prefixes, max_size=6))
def test_a_pool_overlaps_nothing(used: list[Prefix], promised: list[Prefix]) -> None:
    found = choose_pool(None, 4, used, promised, "0" * 32)
    assert not any(found.overlaps(other) for other in (*used, *promised))
    assert choose_pool(None, 6, used, promised, "ab" * 16) == Prefix.parse("fdab:abab:abab::/64")


def test_a_pool_that_is_named() -> None:
    assert choose_pool(WANTED, 4, (), (WANTED,), "") == WANTED, "who asked first may have died"
    for used, promised in (
        ((WANTED,), ()),
        ((), (Prefix.parse("10.55.0.0/25"),)),
        ((Prefix.parse("10.0.0.0/8"),), ()),
    ):
        with pytest.raises(ConflictError, match="overlaps"):
            choose_pool(WANTED, 4, used, promised, "")
    for bad, version in ((WANTED, 6), (Prefix.parse("127.0.0.0/8"), 4), (Prefix.parse("10.55.0.0/31"), 4)):
        with pytest.raises(RequestError):
            choose_pool(bad, version, (), (), "")


def test_a_pool_is_its_text() -> None:
    for text in ("10.55.0.0/24", "10.55.0.0/24,10.55.0.128/25", "fd00::/64"):
        assert str(Pool.parse(text)) == text
    assert str(Pool.parse("10.55.0.0/24,10.55.0.0/24")) == "10.55.0.0/24"
    for text in (
        "",
        "x",
        "10.55.0.0/24,",
        "10.55.0.0/24,10.0.0.0/8",
        "10.55.0.0/24,10.56.0.0/25",
        ",10.55.0.0/24",
    ):
        with pytest.raises(RequestError):
            Pool.parse(text)


def test_a_gateway() -> None:
    pool = Pool.parse("10.55.0.0/24,10.55.0.128/25")
    assert str(request_gateway(pool, None)) == "10.55.0.1/24"
    assert str(request_gateway(pool, Address.parse("10.55.0.254"))) == "10.55.0.254/24"
    for text in ("10.55.0.0", "10.55.0.255", "10.56.0.1", "fd00::1"):
        with pytest.raises(RequestError, match="cannot be a gateway"):
            request_gateway(pool, Address.parse(text))


def test_promises_are_leases(tmp_path: Path) -> None:
    address = Address.parse("10.55.0.7")
    with Store(str(tmp_path)) as store, store.transaction():
        leases = store.leases
        leases.promise("blue", address)
        assert leases.holder("blue", address) == PROMISED
        assert list(leases.taken("blue", WANTED.address, WANTED.last)) == [address]
        assert leases.cursor("blue", WANTED) == address
        leases.break_promise("blue", address)
        leases.break_promise("blue", address)
        assert leases.holder("blue", address) == ""
        leases.promise_pool(WANTED)
        leases.promise_pool(WANTED)
        assert leases.pools() == (WANTED,)
        leases.break_pool(WANTED)
        assert leases.pools() == ()


def test_where_a_namespace_is_can_be_told_later(tmp_path: Path) -> None:
    _, seen = attached()
    with Store(str(tmp_path)) as store:
        with store.transaction():
            insert(store, seen.container)
            store.put_netns(seen.container.name, "/run/docker/netns/x")
            store.put_netns("nobody", "/run/docker/netns/x")
        found = store.container(seen.container.name)
        assert isinstance(found, Container)
        assert found == seen.container.replace(netns="/run/docker/netns/x")
        assert store.containers_in("/run/docker/netns/x") == (found,)
