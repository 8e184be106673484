"""Routes that come and go with an endpoint, and networks that see each other: what is planned of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vethwork.errors import RequestError
from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.container import Endpoint
from vethwork.model.names import IfName, Name
from vethwork.model.network import PEERINGS, Network, Way
from vethwork.model.steps import AddRoute, DeleteRoute
from vethwork.plan.elements import all_elements, network_elements, peer_elements
from vethwork.plan.endpoint import check_way, route_steps, routes_of, unroute_steps

NETNS = "/run/x"


def endpoint(
    number: int, *gateways: str, metric: int = 0, wants: bool = True, ways: tuple[Way, ...] = ()
) -> Endpoint:
    return Endpoint(
        f"2d5eee87b4{number:02x}",
        Name("web"),
        Name(f"net{number}"),
        IfName(f"eth{9 - number}"),
        f"vw{number}",
        Mac(0x02 << 40 | number),
        (),
        tuple(Address.parse(each) for each in gateways),
        ways,
        metric,
        wants,
    )


def network(name: str, peering: str = "none", *, internal: bool = False, managed: bool = True) -> Network:
    return Network(
        name.rjust(32, "0"),
        Name(name),
        "bridge",
        IfName(f"br-{name}"),
        (),
        1500,
        internal,
        peering=peering,
        managed=managed,
    )


def by_default(step: AddRoute) -> tuple[str, str, int]:
    return step.ifname, str(step.gateway), step.metric


def test_of_two_routes_of_the_older_endpoints_is_there() -> None:
    old, new = endpoint(0, "10.0.0.1"), endpoint(1, "10.1.0.1", "fd01::1")
    found = [by_default(step) for step in routes_of(NETNS, (new, old))]
    assert found == [("eth9", "10.0.0.1", 0), ("eth8", "fd01::1", 0)]


def test_metrics_stand_beside_each_other() -> None:
    found = routes_of(NETNS, (endpoint(0, "10.0.0.1", metric=100), endpoint(1, "10.1.0.1", metric=50)))
    assert [step.metric for step in found] == [100, 50]


def test_the_first_gateway_of_each_version_is_enough() -> None:
    found = routes_of(NETNS, (endpoint(0, "10.0.0.1", "10.0.1.1", "fd00::1", "fd01::1"),))
    assert [str(step.gateway) for step in found] == ["10.0.0.1", "fd00::1"]


def test_who_wants_none_gets_none() -> None:
    assert routes_of(NETNS, (endpoint(0, "10.0.0.1", wants=False),)) == ()


def test_the_next_takes_over() -> None:
    old, new = endpoint(0, "10.0.0.1"), endpoint(1, "10.1.0.1")
    assert [by_default(step) for step in unroute_steps(NETNS, old, (new,)) if isinstance(step, AddRoute)] == [
        ("eth8", "10.1.0.1", 0)
    ]
    assert unroute_steps(NETNS, new, (old,)) == ()
    assert unroute_steps(NETNS, old, ()) == ()


def test_what_leads_nowhere_does_not_go_with_its_link() -> None:
    way = Way(Prefix.parse("10.9.0.0/16"), None, 5, "blackhole")
    one = endpoint(0, ways=(way, Way(Prefix.parse("10.8.0.0/16"), Address.parse("10.0.0.9"))))
    assert unroute_steps(NETNS, one, ()) == (DeleteRoute(NETNS, Prefix.parse("10.9.0.0/16"), 5, "blackhole"),)
    steps = route_steps(NETNS, one, ())
    undone = [each for step in steps for each in step.undo()]
    assert undone == list(unroute_steps(NETNS, one, ()))
    assert [type(step).__name__ for step in (*steps, *undone)] == ["AddRoute", "AddRoute", "DeleteRoute"]


ENDPOINTS = some.lists(
    some.builds(
        lambda gateways, metric, wants: (gateways, metric, wants),
        some.lists(some.sampled_from(["10.0.0.1", "10.1.0.1", "fd00::1", "fd01::1"]), max_size=3),
        some.sampled_from([0, 50, 100]),
        some.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def test_a_route_takes_the_place_of_our_own_and_of_no_other() -> None:
    old, new = (
        endpoint(1, "10.0.0.1"),
        endpoint(0, "10.1.0.1"),
    )  # the numbers of endpoints begin anew after 256
    (first,), (second,) = route_steps(NETNS, old, ()), route_steps(NETNS, new, (old,))
    assert isinstance(first, AddRoute)
    assert isinstance(second, AddRoute)
    assert (first.instead, second.instead) == ("", old.ifname)
    assert " route add default" in first.describe()[0]
    assert " route replace default" in second.describe()[0]


@given(made=ENDPOINTS, gone=some.integers(0, 4))
def test_what_is_there_is_what_would_be_there_anew(
    made: list[tuple[list[str], int, bool]], gone: int
) -> None:
    """The routes after any coming and going are those of the endpoints that are there."""
    endpoints = [endpoint(n, *each[0], metric=each[1], wants=each[2]) for n, each in enumerate(made)]
    there: dict[tuple[int, int], AddRoute] = {}
    have: tuple[Endpoint, ...] = ()
    for each in endpoints:
        for step in route_steps(NETNS, each, have):
            assert isinstance(step, AddRoute)
            assert step.gateway is not None
            there[step.gateway.version, step.metric] = step
        have += (each,)
    assert set(there.values()) == set(routes_of(NETNS, have))
    leaver = endpoints[gone % len(endpoints)]
    rest = tuple(each for each in have if each != leaver)
    there = {key: step for key, step in there.items() if step.ifname != leaver.ifname}
    for step in unroute_steps(NETNS, leaver, rest):
        assert isinstance(step, AddRoute)
        assert step.gateway is not None
        there[step.gateway.version, step.metric] = step
    assert set(there.values()) == set(routes_of(NETNS, rest))


@pytest.mark.parametrize(
    ("way", "word"),
    [
        (Way(None, None), "gateway"),
        (Way(Prefix.parse("10.0.0.0/8"), None, 0, "nonsense"), "nonsense"),
        (Way(Prefix.parse("10.0.0.0/8"), Address.parse("10.0.0.1"), 0, "blackhole"), "nowhere"),
        (Way(None, None, 0, "blackhole"), "nowhere"),
        (Way(Prefix.parse("10.0.0.0/8"), None, -1), "metric"),
        (Way(Prefix.parse("10.0.0.0/8"), None, 1 << 32), "metric"),
        (Way(Prefix.parse("fd00::/8"), Address.parse("10.0.0.1")), "two IP versions"),
    ],
)
def test_a_route_that_makes_no_sense(way: Way, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        check_way("join x", way)


@pytest.mark.parametrize("one", PEERINGS)
@pytest.mark.parametrize("other", PEERINGS)
def test_both_must_agree_to_see_each_other(one: str, other: str) -> None:
    pairs = peer_elements(network("a", one), (network("a", one), network("b", other)))
    meet = "none" not in (one, other) and "all" in (one, other)
    assert {each.key for each in pairs} == ({("br-a", "br-b"), ("br-b", "br-a")} if meet else set())


def test_what_is_closed_or_not_ours_sees_nobody() -> None:
    for closed in (network("b", "all", internal=True), network("b", "all", managed=False)):
        assert (
            peer_elements(network("a", "all"), (closed,))
            == peer_elements(closed, (network("a", "all"),))
            == ()
        )
    assert network_elements(network("b", managed=False)) == ()


def test_the_whole_is_the_sum_of_what_each_network_added() -> None:
    networks = [
        network(name, peering) for name, peering in zip("abcd", ("all", "some", "all", "none"), strict=True)
    ]
    added = []
    for place, each in enumerate(networks):
        added += [*network_elements(each), *peer_elements(each, networks[:place])]
    assert sorted(map(repr, all_elements(networks, (), (), ()))) == sorted(map(repr, added))
    assert len(set(added)) == len(added)
