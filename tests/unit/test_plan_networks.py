"""Making, restoring and removing networks: what is chosen, what is done on the host, and every refusal word by word."""

from __future__ import annotations

import pytest

from tests.unit.golden import assert_golden
from vethwork.errors import ConflictError, NotFound, RequestError
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Endpoint
from vethwork.model.names import IfName, Name
from vethwork.model.network import Forwarding, Network, NetworkRequest, Subnet, Way
from vethwork.model.plan import Plan
from vethwork.model.state import HostSeen
from vethwork.model.steps import AddAddress, ChangeElements, CreateBridge, DeleteLink, JoinBridge, SetSysctl
from vethwork.plan.network_diff import differences_of
from vethwork.plan.networks import (
    plan_create_network,
    plan_remove_network,
    plan_restore_network,
)
from vethwork.plan.ruleset import TABLES

ID = "0123456789abcdef" * 2
NAME = Name("web")
HOST = HostSeen(
    taken=(Prefix.parse("192.0.2.0/24"),),
    links=("lo", "uplink", "br0", "taken0"),
    mtu=1400,
    forwarding=(),
    ra_links=("uplink",),
    ipv6=True,
    way_out="uplink",
    mtus=(65536, 1400, 9000, 1500),
    bridges=("br0",),
)


def subnet(prefix: str, gateway: str = "", pool: str = "", source: str = "") -> Subnet:
    """Build one; what is empty is none, or the whole."""
    whole, inner = Prefix.parse(prefix), Prefix.parse(pool or prefix)
    return Subnet(
        whole, Address.parse(gateway) if gateway else None, inner, Address.parse(source) if source else None
    )


def addresses(*texts: str) -> tuple[Address, ...]:
    """Read several."""
    return tuple(Address.parse(text) for text in texts)


def prefixes(*texts: str) -> tuple[Prefix, ...]:
    """Read several."""
    return tuple(Prefix.parse(text) for text in texts)


def create(request: NetworkRequest, seen: HostSeen = HOST, others: tuple[Network, ...] = ()) -> Plan:
    """Plan it."""
    return plan_create_network(request, ID, seen, others)


def made(request: NetworkRequest, seen: HostSeen = HOST, others: tuple[Network, ...] = ()) -> Network:
    """The network that would be."""
    (network, *_) = create(request, seen, others).adds
    assert isinstance(network, Network)
    return network


OTHER = made(NetworkRequest(Name("other"), subnets=prefixes("10.5.0.0/24")))
FOREIGN = Subnet(Prefix.parse("10.5.0.0/24"), None, Prefix.parse("10.5.0.0/24"))

BAD: list[tuple[dict[str, object], str]] = [
    ({"name": Name("host")}, "the name means a mode (choose another name)"),
    ({"name": Name("none")}, "the name means a mode (choose another name)"),
    ({"name": Name("other")}, "there is one of that name (vethwork network inspect other)"),
    ({"driver": "overlay"}, "driver 'overlay' is none of bridge, p2p, macvlan, foreign"),
    (
        {"internal": True, "isolated": True},
        "--internal keeps a gateway address, --isolated has none: choose one",
    ),
    (
        {"internal": True, "sources": addresses("192.0.2.1")},
        "nothing leaves it, so there is nothing to masquerade",
    ),
    (
        {"isolated": True, "sources": addresses("192.0.2.1")},
        "nothing leaves it, so there is nothing to masquerade",
    ),
    (
        {"driver": "p2p", "sources": addresses("192.0.2.1")},
        "nothing leaves it, so there is nothing to masquerade",
    ),
    ({"isolated": True, "gateways": addresses("10.0.0.1")}, "it has no gateway"),
    ({"driver": "p2p", "gateways": addresses("10.0.0.1")}, "it has no gateway"),
    ({"mtu": 67}, "an MTU is 68 to 65535 bytes, not 67"),
    ({"mtu": 0}, "an MTU is 68 to 65535 bytes, not 0"),
    ({"mtu": 65536}, "an MTU is 68 to 65535 bytes, not 65536"),
    ({"mtu": 1279, "ipv6": True}, "IPv6 needs an MTU of 1280 bytes at least (RFC 8200), not 1279"),
    (
        {"mtu": 68, "subnets": prefixes("fd00::/64")},
        "IPv6 needs an MTU of 1280 bytes at least (RFC 8200), not 68",
    ),
    ({"mode": "bridge"}, "mode 'bridge' is for a macvlan"),
    ({"driver": "macvlan", "mode": "routed"}, "mode 'routed' is none of bridge, private, vepa, passthru"),
    ({"peering": "few"}, "peering 'few' is none of none, some, all"),
    ({"driver": "p2p", "managed": False}, "only a bridge can be somebody else's"),
    (
        {"driver": "foreign", "device": IfName("taken0"), "settled": ()},
        "a foreign network is somebody else's, and so are its addresses",
    ),
    (
        {"driver": "foreign", "device": IfName("taken0"), "managed": False},
        "a foreign network is somebody else's, and so are its addresses",
    ),
    (
        {"driver": "foreign", "device": IfName("gone0"), "managed": False, "settled": ()},
        "the host has no link gone0",
    ),
    ({"ways": (Way(None, None),)}, "a default route needs a gateway"),
    (
        {"ways": (Way(Prefix.parse("10.9.0.0/16"), Address.parse("fd00::1")),)},
        "route 10.9.0.0/16 via fd00::1: two IP versions",
    ),
    (
        {"ways": (Way(Prefix.parse("10.9.0.0/16"), Address.parse("10.0.0.1"), 0, "blackhole"),)},
        "route 10.9.0.0/16: one that leads nowhere has a prefix and no gateway",
    ),
    (
        {"ways": (Way(Prefix.parse("10.9.0.0/16"), None, 0, "teleport"),)},
        "route 10.9.0.0/16: type 'teleport' is none of unicast, blackhole, unreachable, prohibit",
    ),
    (
        {"ways": (Way(Prefix.parse("10.9.0.0/16"), None, -1),)},
        "route 10.9.0.0/16: a metric is 0 to 4294967295, not -1",
    ),
    ({"device": IfName("taken0")}, "the host has a link taken0 already"),
    ({"driver": "macvlan", "device": IfName("gone0")}, "the host has no link gone0 for a macvlan to sit on"),
    ({"managed": False}, "a bridge that somebody else keeps must be named"),
    (
        {"managed": False, "device": IfName("taken0")},
        "the host has no bridge taken0 (make it first, or let us manage it)",
    ),
    ({"subnets": prefixes("10.5.0.0/16")}, "subnet 10.5.0.0/16 overlaps 10.5.0.0/24, which is in use"),
    ({"subnets": prefixes("192.0.2.128/25")}, "subnet 192.0.2.128/25 overlaps 192.0.2.0/24, which is in use"),
    (
        {"subnets": prefixes("10.0.0.0/24", "10.0.0.0/25")},
        "subnet 10.0.0.0/25 overlaps 10.0.0.0/24, which is in use",
    ),
    ({"subnets": prefixes("10.0.0.0/31")}, "subnet 10.0.0.0/31 is too small"),
    ({"subnets": prefixes("fd00::/127")}, "subnet fd00::/127 is too small"),
    ({"subnets": prefixes("10.0.0.0/32"), "isolated": True}, "subnet 10.0.0.0/32 is too small"),
    ({"subnets": prefixes("10.0.0.0/32"), "driver": "p2p"}, "subnet 10.0.0.0/32 is too small"),
    ({"subnets": prefixes("224.0.0.0/24")}, "224.0.0.0/24 is no range for hosts"),
    ({"subnets": prefixes("127.0.0.0/8")}, "127.0.0.0/8 is no range for hosts"),
    ({"subnets": prefixes("0.0.0.0/8")}, "0.0.0.0/8 is no range for hosts"),
    ({"subnets": prefixes("ff00::/64")}, "ff00::/64 is no range for hosts"),
    ({"subnets": prefixes("10.0.0.0/24", "10.1.0.0/24")}, "one subnet for each IP version"),
    (
        {"subnets": prefixes("10.0.0.0/24"), "gateways": addresses("10.0.0.0")},
        "10.0.0.0 cannot be a gateway in 10.0.0.0/24",
    ),
    (
        {"subnets": prefixes("10.0.0.0/24"), "gateways": addresses("10.0.0.255")},
        "10.0.0.255 cannot be a gateway in 10.0.0.0/24",
    ),
    (
        {"subnets": prefixes("10.0.0.0/24"), "gateways": addresses("10.1.0.1")},
        "10.1.0.1 fits none of its subnets",
    ),
    (
        {"subnets": prefixes("10.0.0.0/24"), "gateways": addresses("10.0.0.1", "10.0.0.2")},
        "10.0.0.2 fits none of its subnets",
    ),
    (
        {"subnets": prefixes("10.0.0.0/24"), "pools": prefixes("10.0.0.0/23")},
        "10.0.0.0/23 fits none of its subnets",
    ),
    (
        {"subnets": prefixes("10.0.0.0/24"), "sources": addresses("fd00::1")},
        "fd00::1 fits none of its subnets",
    ),
    (
        {"settled": (FOREIGN.replace(gateway=Address.parse("10.5.0.0")),)},
        "subnet 10.5.0.0/24: 10.5.0.0 cannot be a gateway in it",
    ),
    ({"settled": (FOREIGN,)}, "subnet 10.5.0.0/24: overlaps 10.5.0.0/24, which is in use"),
    (
        {"settled": (FOREIGN, FOREIGN), "driver": "macvlan"},
        "subnet 10.5.0.0/24: overlaps 10.5.0.0/24, which is in use",
    ),
]


@pytest.mark.parametrize(("fields", "why"), BAD, ids=[why[:60] for _, why in BAD])
def test_what_cannot_be_made_is_refused(fields: dict[str, object], why: str) -> None:
    request = NetworkRequest(NAME).replace(**fields)
    with pytest.raises((RequestError, ConflictError)) as refused:
        create(request, others=(OTHER,))
    assert str(refused.value) in (
        f"create network {request.name}: {why}",
        f"create network {request.name}{why}",
    )


def test_what_this_host_cannot_do_is_refused() -> None:
    for request in (
        NetworkRequest(NAME, ipv6=True),
        NetworkRequest(NAME, subnets=prefixes("fd00::/64")),
        NetworkRequest(NAME, settled=(subnet("fd00::/64"),)),
    ):
        with pytest.raises(RequestError, match="this kernel has no IPv6"):
            create(request, HOST.replace(ipv6=False))
    with pytest.raises(RequestError, match="the host has no default route to choose one by"):
        create(NetworkRequest(NAME, "macvlan"), HOST.replace(way_out=""))
    with pytest.raises(RequestError, match="IPv6 needs an MTU of 1280 bytes at least"):
        create(NetworkRequest(NAME, ipv6=True), HOST.replace(mtu=1200))


# What is chosen ------------------------------------------------------------------------------------------------------


def test_the_defaults() -> None:
    network = made(NetworkRequest(NAME))
    assert network == Network(
        id=ID,
        name=NAME,
        driver="bridge",
        device=IfName("vw-0123456789ab"),
        subnets=(
            Subnet(Prefix.parse("10.76.0.0/22"), Address.parse("10.76.0.1"), Prefix.parse("10.76.0.0/22")),
        ),
        mtu=1400,
    )
    assert network.routed
    assert network.versions == (4,)


def test_the_ready_made_network_has_its_own_device() -> None:
    network = made(NetworkRequest.default())
    assert (network.name, network.device) == ("bridge", "vethwork0")


def test_a_chosen_subnet_is_clear_of_what_is_taken() -> None:
    seen = HOST.replace(taken=prefixes("10.76.0.0/21"))
    (chosen,) = made(
        NetworkRequest(NAME), seen, (OTHER.replace(subnets=made(NetworkRequest(NAME)).subnets),)
    ).subnets
    assert str(chosen.prefix) == "10.76.8.0/22"


def test_what_is_on_somebody_elses_wire_keeps_nobody_from_an_address() -> None:
    theirs = OTHER.replace(driver="macvlan")
    assert made(NetworkRequest(NAME, subnets=prefixes("10.5.0.0/24")), HOST, (theirs,)).versions == (4,)
    shared = NetworkRequest(NAME, "macvlan", settled=(FOREIGN,))
    assert made(shared, HOST, (OTHER,)).subnets == (FOREIGN,)
    apart = (subnet("10.6.0.0/24"), subnet("10.7.0.0/24", "10.7.0.1"))
    assert made(NetworkRequest(NAME, settled=apart), HOST, (OTHER,)).subnets == apart
    bridge = NetworkRequest(NAME, managed=False, device=IfName("br0"), settled=(FOREIGN,))
    assert made(bridge, HOST, (OTHER,)).subnets == (FOREIGN,)


def test_ipv6_gives_a_prefix_of_our_own_beside_the_other() -> None:
    network = made(NetworkRequest(NAME, ipv6=True))
    assert [str(each.prefix) for each in network.subnets] == ["10.76.0.0/22", "fd01:2345:6789::/64"]
    assert [str(each.gateway) for each in network.subnets] == ["10.76.0.1", "fd01:2345:6789::1"]
    assert network.versions == (4, 6)


def test_ipv6_alone_is_ipv6_alone() -> None:
    network = made(NetworkRequest(NAME, ipv6=True, subnets=prefixes("fd00:1::/64")))
    assert network.versions == (6,)


def test_gateways_pools_and_sources_go_to_their_subnets() -> None:
    request = NetworkRequest(
        NAME,
        subnets=prefixes("fd00:1::/64", "10.0.0.0/24"),
        gateways=addresses("10.0.0.254", "fd00:1::fe"),
        pools=prefixes("10.0.0.128/25", "fd00:1::100/120"),
        sources=addresses("198.51.100.1"),
    )
    v6, v4 = made(request).subnets
    assert v6 == subnet("fd00:1::/64", "fd00:1::fe", "fd00:1::100/120")
    assert v4 == subnet("10.0.0.0/24", "10.0.0.254", "10.0.0.128/25", "198.51.100.1")


@pytest.mark.parametrize(
    ("request_", "gateway"),
    [
        (NetworkRequest(NAME, internal=True), "10.76.0.1"),
        (NetworkRequest(NAME, isolated=True), "None"),
        (NetworkRequest(NAME, "p2p"), "None"),
        (NetworkRequest(NAME, "macvlan"), "None"),
    ],
    ids=["internal", "isolated", "p2p", "macvlan"],
)
def test_who_has_a_gateway(request_: NetworkRequest, gateway: str) -> None:
    network = made(request_)
    assert str(network.subnets[0].gateway) == gateway
    assert not network.routed


@pytest.mark.parametrize(
    ("request_", "device", "mtu"),
    [
        (NetworkRequest(NAME, "p2p"), "vwp0123456789ab", 1400),
        (NetworkRequest(NAME, "macvlan"), "uplink", 1400),
        (NetworkRequest(NAME, "macvlan", device=IfName("br0")), "br0", 9000),
        (NetworkRequest(NAME, managed=False, device=IfName("br0")), "br0", 9000),
        (NetworkRequest(NAME, device=IfName("mine0"), mtu=9000), "mine0", 9000),
    ],
    ids=["p2p", "macvlan", "macvlan on", "foreign", "named"],
)
def test_what_it_sits_on_and_how_large_its_packets_are(
    request_: NetworkRequest, device: str, mtu: int
) -> None:
    network = made(request_)
    assert (network.device, network.mtu) == (device, mtu)


def test_a_cable_has_room_for_two() -> None:
    (chosen,) = made(NetworkRequest(NAME, "p2p")).subnets
    assert str(chosen.prefix) == "10.76.0.0/30"
    (tiny,) = made(NetworkRequest(NAME, "p2p", subnets=prefixes("10.0.0.0/31"))).subnets
    assert tiny.prefix.size == 2


def test_a_macvlan_is_in_the_subnet_of_its_link_and_its_gateway_is_the_one_that_is_named() -> None:
    prefix, router = HOST.taken[0], HOST.taken[0].address + 1
    request = NetworkRequest(NAME, "macvlan", (prefix,))
    assert made(request).subnets == (Subnet(prefix, None, prefix),)
    assert made(request.replace(gateways=(router,))).subnets == (Subnet(prefix, router, prefix),)


def test_a_macvlan_is_a_bridge_among_its_own() -> None:
    assert made(NetworkRequest(NAME, "macvlan")).mode == "bridge"
    assert made(NetworkRequest(NAME, "macvlan", mode="vepa")).mode == "vepa"
    assert made(NetworkRequest(NAME)).mode == ""


# What is done --------------------------------------------------------------------------------------------------------

SCENARIOS = {
    "default": NetworkRequest.default(),
    "dual stack": NetworkRequest(NAME, ipv6=True, subnets=prefixes("10.0.0.0/24")),
    "ipv6 only": NetworkRequest(NAME, subnets=prefixes("fd00:1::/64")),
    "internal": NetworkRequest(NAME, internal=True),
    "isolated": NetworkRequest(NAME, isolated=True, ipv6=True),
    "closed to each other": NetworkRequest(NAME, icc=False),
    "masquerade no": NetworkRequest(NAME, masquerade=False),
    "masquerade by address": NetworkRequest(NAME, sources=addresses("198.51.100.1")),
    "names": NetworkRequest(NAME, dns_port=5353),
    "seen by another": NetworkRequest(NAME, peering="all"),
    "p2p": NetworkRequest(NAME, "p2p"),
    "macvlan": NetworkRequest(NAME, "macvlan"),
    "foreign bridge": NetworkRequest(NAME, managed=False, device=IfName("br0")),
}


def test_what_each_kind_of_network_takes_on_the_host() -> None:
    text = ""
    for title, request in SCENARIOS.items():
        plan = create(request, others=(OTHER.replace(peering="some"),))
        text += "".join(f"{line}\n" for line in (f"## {title}", *plan.commands(), ""))
    assert_golden("networks.txt", text)


@pytest.mark.parametrize("title", SCENARIOS)
def test_what_opens_comes_last_and_only_forwarding_after_it(title: str) -> None:
    steps = create(SCENARIOS[title]).steps
    opening = [place for place, step in enumerate(steps) if isinstance(step, ChangeElements)]
    assert len(opening) == bool(steps)
    for step in steps[opening[0] + 1 :] if steps else ():
        assert isinstance(step, SetSysctl)
        assert step.before


def test_forwarding_that_is_on_is_left_as_it_is() -> None:
    plan = create(SCENARIOS["dual stack"], HOST.replace(forwarding=(4, 6)))
    assert [row for row in plan.adds if isinstance(row, Forwarding)] == []
    assert not any(isinstance(step, SetSysctl) and step.before for step in plan.steps)
    plan = create(SCENARIOS["dual stack"])
    assert plan.adds[1:] == (Forwarding(4), Forwarding(6))


def test_a_guard_that_stands_is_turned_on_again_but_not_put_on_record_and_not_taken_back() -> None:
    plan = create(SCENARIOS["dual stack"], HOST.replace(guarded=(4,)))
    assert plan.adds[1:] == (Forwarding(6),)
    assert any(isinstance(step, SetSysctl) and step.path == "ipv4/ip_forward" for step in plan.steps)
    changed = [each for step in plan.backward() if isinstance(step, ChangeElements) for each in step.deletes]
    assert [each.key for each in changed if each.set == "guarded"] == [("ipv6",)]


def test_without_ipv6_no_ipv6_sysctl_is_written() -> None:
    plan = create(NetworkRequest(NAME), HOST.replace(ipv6=False))
    assert not any(isinstance(step, SetSysctl) and step.path.startswith("ipv6") for step in plan.steps)


# Restored and removed ------------------------------------------------------------------------------------------------


def endpoint(network: Network, host_ifname: str) -> Endpoint:
    """An endpoint on it."""
    address = Interface.parse("10.5.0.9/24")
    return Endpoint(
        "000000000000",
        Name("c"),
        network.name,
        IfName("eth0"),
        host_ifname,
        Mac.of(address.address),
        (address,),
        (),
    )


def test_a_network_is_restored_as_far_as_it_is_missing() -> None:
    whole = plan_restore_network(OTHER, HOST, (), (endpoint(OTHER, "taken0"), endpoint(OTHER, "gone0")))
    assert isinstance(whole.steps[0], CreateBridge)
    assert whole.steps[-1] == JoinBridge("taken0", OTHER.device, hairpin=True)
    assert whole.forward
    assert whole.adds == (Forwarding(4),)
    there = plan_restore_network(
        OTHER, HOST.replace(links=(*HOST.links, OTHER.device)), (), (endpoint(OTHER, "taken0"),)
    )
    assert not any(isinstance(step, (CreateBridge, JoinBridge)) for step in there.steps)
    assert any(isinstance(step, AddAddress) for step in there.steps)


def test_what_is_made_is_what_is_removed() -> None:
    declared = {(table.family, each.name) for table in TABLES for each in table.sets}
    for title, request in SCENARIOS.items():
        others = (OTHER.replace(peering="some"),)
        plan = create(request, others=others)
        (network, *_) = plan.adds
        assert isinstance(network, Network)
        removal = plan_remove_network(network, (), others)
        added = {each for step in plan.steps if isinstance(step, ChangeElements) for each in step.adds}
        deleted = {
            each for step in removal.steps if isinstance(step, ChangeElements) for each in step.deletes
        }
        assert {each for each in added if each.set != "guarded"} == deleted, title
        assert {(each.family, each.set) for each in added} <= declared
        assert removal.removes == (network,)
        links = [step for step in removal.steps if isinstance(step, DeleteLink)]
        assert bool(links) == (title not in ("macvlan", "foreign bridge", "p2p"))


def test_a_network_with_containers_on_it_stays() -> None:
    with pytest.raises(ConflictError) as refused:
        plan_remove_network(OTHER, (endpoint(OTHER, "a"), endpoint(OTHER, "b")))
    assert str(refused.value) == "remove network other: c still on it (disconnect or remove them first)"


def test_an_address_outside_its_subnets_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        OTHER.subnet_of(Address.parse("10.6.0.1"))
    assert str(refused.value) == "network other: 10.6.0.1 lies in none of its subnets (it has 10.5.0.0/24)"


# In what a network is another than was asked for ---------------------------------------------------------------------

SAME = NetworkRequest(Name("other"), subnets=prefixes("10.5.0.0/24"))
(GATEWAY,) = addresses("10.5.0.1")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ()),
        ({"subnets": ()}, ()),
        ({"mtu": 1400, "device": OTHER.device, "gateways": (GATEWAY,), "id": ID}, ()),
        ({"settled": OTHER.subnets}, ()),
        ({"driver": "p2p"}, ("its driver is bridge, not p2p",)),
        ({"internal": True}, ("its internal is False, not True",)),
        ({"icc": False}, ("its icc is True, not False",)),
        ({"peering": "all"}, ("its peering is none, not all",)),
        ({"mtu": 9000}, ("its mtu is 1400, not 9000",)),
        ({"mode": "vepa"}, ("its mode is , not vepa",)),
        ({"device": IfName("br9")}, (f"its device is {OTHER.device}, not br9",)),
        ({"subnets": prefixes("10.6.0.0/24")}, ("its subnet is 10.5.0.0/24, not 10.6.0.0/24",)),
        ({"gateways": addresses("10.5.0.2")}, ("its gateway is not 10.5.0.2",)),
        ({"sources": addresses("10.5.0.2")}, ("it does not hide behind 10.5.0.2",)),
        ({"settled": (FOREIGN,)}, ("its gateway, pool or source is another",)),
        (
            {"settled": (FOREIGN.replace(prefix=Prefix.parse("10.6.0.0/24")),)},
            ("its subnet is 10.5.0.0/24, not 10.6.0.0/24",),
        ),
    ],
)
def test_in_what_a_network_differs(fields: dict[str, object], said: tuple[str, ...]) -> None:
    assert differences_of(OTHER, SAME.replace(**fields)) == said


def test_a_link_that_is_not_there_is_told_as_such() -> None:
    for fields in ({"driver": "macvlan"}, {"managed": False}):
        with pytest.raises(NotFound):
            create(NetworkRequest(NAME, device=IfName("gone0")).replace(**fields))
