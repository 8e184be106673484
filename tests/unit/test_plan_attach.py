"""Containers: attach, connect, publish, detach and their like, as plans; and every refusal word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fake_kernel import HOST
from tests.unit.golden import assert_golden
from tests.unit.world import FOREIGN, World
from vethwork.errors import ConflictError, NotFound, RequestError
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import (
    AWAITED,
    AttachRequest,
    Container,
    Endpoint,
    Join,
    Mode,
    Publication,
    Range,
    parse_modes,
)
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.network import Network, NetworkRequest, Way
from vethwork.model.ports import Publish
from vethwork.model.process import ProcessRow, RunOptions
from vethwork.model.shaping import Bandwidth, Rate
from vethwork.model.state import AttachSeen, ContainerSeen, PortSeen
from vethwork.model.steps import (
    AddRoute,
    ChangeElements,
    CreateMacvlan,
    CreateVeth,
    DeleteLink,
    PinNetns,
    SetLinkUp,
    SetSysctl,
)
from vethwork.plan.attach import plan_attach, plan_connect, plan_reattach
from vethwork.plan.detach import plan_disconnect
from vethwork.plan.endpoint import bridge_mac
from vethwork.plan.external_links import plan_hand_over
from vethwork.plan.ports import DYNAMIC_FIRST, DYNAMIC_LAST, dynamic_ports, publications_of

if TYPE_CHECKING:
    from vethwork.model.plan import Plan

WEB = Mode("network", "web")
RATE = Rate(8_000_000, 20_000)


def join(network: str, *asked: str, **fields: object) -> Join:
    """Build one."""
    return Join(Name(network), tuple(Address.parse(text) for text in asked)).replace(**fields)


def publishes(*texts: str) -> tuple[Publish, ...]:
    """Read several."""
    return tuple(Publish.parse(text) for text in texts)


def network(name: str, subnet: str, **fields: object) -> NetworkRequest:
    """Ask for one."""
    return NetworkRequest(Name(name), subnets=tuple(map(Prefix.parse, subnet.split()))).replace(**fields)


@pytest.fixture
def world() -> World:
    """A host with a network of each kind."""
    made = World()
    for request in (
        network("web", "10.1.0.0/29 fd00:1::/64"),
        network("db", "10.2.0.0/29"),
        network("six", "fd00:6::/64"),
        network("inner", "10.3.0.0/29", internal=True),
        network("alone", "10.4.0.0/29", isolated=True),
        network("cable", "10.5.0.0/30", driver="p2p"),
        network("wire", "10.6.0.0/24", driver="macvlan"),
        network("pass", "10.7.0.0/24", driver="macvlan", mode="passthru"),
    ):
        made.do(made.create_network(request))
    return made


def endpoints(plan: Plan) -> list[Endpoint]:
    """What it puts on record."""
    return [row for row in plan.adds if isinstance(row, Endpoint)]


def refusal(plan: object, *args: object, **named: object) -> str:
    """What is said where it cannot be."""
    with pytest.raises((RequestError, ConflictError)) as refused:
        plan(*args, **named)  # type: ignore[operator]
    return str(refused.value)


# Modes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "netns", "kinds"),
    [
        (Mode("host"), "", []),
        (Mode("none"), "/run/vethwork/netns/00000000", [PinNetns, SetLinkUp]),
        (Mode("ns", FOREIGN), FOREIGN, []),
        (WEB, "/run/vethwork/netns/00000000", [PinNetns, SetLinkUp]),
    ],
    ids=str,
)
def test_each_mode_has_its_namespace(world: World, mode: Mode, netns: str, kinds: list[type]) -> None:
    plan = world.attach("c", mode)
    (container,) = plan.adds
    assert isinstance(container, Container)
    assert container.netns.startswith(netns)
    assert bool(container.netns) == bool(netns)
    assert container.pinned == (PinNetns in kinds)
    assert [type(step) for step in plan.steps] == kinds


def test_a_container_shares_the_namespace_of_another(world: World) -> None:
    world.do(world.attach("one", WEB, (join("web"),)))
    plan = world.attach("two", Mode("container", "one"))
    (container,) = plan.adds
    assert isinstance(container, Container)
    assert (container.netns, container.pinned, container.mode) == (
        world.row(Container, "one").netns,
        False,
        "container:one",
    )
    assert plan.steps == ()
    world.do(plan)
    assert refusal(world.detach, "one") == "remove one: two share its namespace (remove two first)"
    world.do(world.detach("two"))
    world.do(world.detach("one"))


def test_a_mac_address_is_chosen_so_that_nobody_has_it_and_refused_where_somebody_does(world: World) -> None:
    asked = Mac.parse("02:76:00:00:00:07")
    world.do(world.attach("one", WEB, (join("six", mac=asked),)))
    why = "MAC address 02:76:00:00:00:07: is held by container one"
    assert refusal(world.attach, "two", WEB, (join("six", mac=asked),)) == why
    (found,) = endpoints(world.attach("two", WEB, (join("six", "fd00:6::7"),)))
    assert found.mac.value >> 32 == 0x0279
    bridge = bridge_mac(world.row(Network, "six"))
    why = f"MAC address {bridge}: is held by the bridge of network six"
    assert refusal(world.attach, "two", WEB, (join("six", mac=bridge),)) == why


def test_where_no_port_is_free_nobody_is_told_of_one_that_he_did_not_name(world: World) -> None:
    one, held = endpoints(world.attach("one", WEB, (join("web"),))), (PortSeen("container all", 50143),)
    networks = [world.row(Network, "web")]
    assert refusal(publications_of, publishes("80"), held, one, networks) == (
        "publish 0:80/tcp: no port of 49152 to 65535 is free (name one, as in 8080:80)"
    )


def test_a_namespace_may_be_somebody_elses(world: World) -> None:
    plan = world.attach("c", WEB, (join("web"),), netns=NetnsPath(FOREIGN))
    assert SetLinkUp(FOREIGN, "lo") in plan.steps
    assert not [step for step in plan.steps if isinstance(step, PinNetns)]
    assert _netns(plan) == FOREIGN
    world.do(plan)
    why = "the namespace has the interfaces of container c (connect c instead)"
    assert refusal(world.attach, "d", WEB, (join("db"),), netns=NetnsPath(FOREIGN)) == f"attach d: {why}"
    world.do(world.attach("e", Mode("none"), netns=NetnsPath(FOREIGN)))
    assert refusal(world.connect, "e", join("db")) == f"connect e: {why}"
    world.do(world.connect("c", join("db")))


@pytest.mark.parametrize(
    ("mode", "netns", "ports", "why"),
    [
        (Mode("host"), None, "80", "publish 0:80/tcp: --net host: the process has the host's own ports"),
        (
            Mode("none"),
            None,
            "80",
            "publish 0:80/tcp: --net none: it has no network that a port could be published from",
        ),
        (
            Mode("container", "x"),
            None,
            "80",
            "publish 0:80/tcp: --net container:x: the ports are those of the container that it shares with",
        ),
        (
            Mode("ns", "/n"),
            None,
            "80",
            "publish 0:80/tcp: --net ns:/n: it has no network that a port could be published from",
        ),
        (Mode("host"), "/n", "", "attach c: --net host names a namespace, and --netns another"),
        (
            Mode("container", "x"),
            "/n",
            "",
            "attach c: --net container:x names a namespace, and --netns another",
        ),
        (Mode("ns", "/m"), "/n", "", "attach c: --net ns:/m names a namespace, and --netns another"),
    ],
)
def test_what_a_mode_cannot_give_is_refused(
    world: World, mode: Mode, netns: str | None, ports: str, why: str
) -> None:
    world.do(world.attach("x", Mode("none")))
    path = NetnsPath(netns) if netns else None
    assert refusal(world.attach, "c", mode, (), publishes(*ports.split()), netns=path) == why


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("host", Mode("host")),
        ("none", Mode("none")),
        ("container:web", Mode("container", "web")),
        ("ns:/run/netns/x", Mode("ns", "/run/netns/x")),
        ("web", Mode("network", "web")),
    ],
)
def test_what_net_takes(text: str, mode: Mode) -> None:
    assert Mode.parse(text) == mode
    assert str(mode) == text


@pytest.mark.parametrize(
    "text",
    ["", "host:", "none:x", "container:", "container:a:b", "ns:", "ns:x", "bridge:x", ":web", "../x", "a b"],
)
def test_what_net_refuses(text: str) -> None:
    with pytest.raises(RequestError):
        Mode.parse(text)


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ((), ["bridge"]),
        (("web",), ["web"]),
        (("web", "db"), ["web", "db"]),
        (("none",), []),
        (("container:web",), []),
    ],
)
def test_what_several_net_take(texts: tuple[str, ...], joined: list[str]) -> None:
    mode, joins = parse_modes(texts)
    assert [each.network for each in joins] == joined
    assert mode == Mode.parse(texts[0] if texts else "bridge")


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (("host", "web"), "--net host, web: only networks can be combined"),
        (("web", "none"), "--net web, none: only networks can be combined"),
        (("container:a", "container:b"), "--net container:a, container:b: only networks can be combined"),
        (("web", "db", "web"), "--net web, db, web: a network is named twice"),
    ],
)
def test_what_several_net_refuse(texts: tuple[str, ...], why: str) -> None:
    assert refusal(parse_modes, texts) == why


def test_a_target_that_is_gone_is_told(world: World) -> None:
    seen = AttachSeen((), (), None, "/pin")
    request = AttachRequest("0" * 32, Name("c"), Mode("container", "gone"))
    assert refusal(plan_attach, request, seen) == "attach c: there is no container gone to share with"


def test_a_name_is_one_containers(world: World) -> None:
    world.do(world.attach("c", Mode("none")))
    assert (
        refusal(world.attach, "c", Mode("none"))
        == "attach c: there is a container of that name (vethwork rm c)"
    )


def test_the_process_is_on_record_with_its_container(world: World) -> None:
    options = RunOptions(("true",), "/dir", "c", (), (), detached=False, remove=False)
    row = ProcessRow("c", options, 1, 2)
    assert world.attach("c", Mode("none"), process=row).adds[-1] == row


# Endpoints -----------------------------------------------------------------------------------------------------------


def test_what_an_endpoint_gets_unasked(world: World) -> None:
    (endpoint,) = endpoints(world.attach("c", WEB, (join("web"),)))
    assert endpoint == Endpoint(
        id=endpoint.id,
        container=Name("c"),
        network=Name("web"),
        ifname=IfName("eth0"),
        host_ifname=f"vw{endpoint.id}",
        mac=Mac.parse("02:76:0a:01:00:02"),
        addresses=(Interface.parse("10.1.0.2/29"), Interface.parse("fd00:1::2/64")),
        gateways=(Address.parse("10.1.0.1"), Address.parse("fd00:1::1")),
    )


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (("10.1.0.5",), ["10.1.0.5/29", "fd00:1::2/64"]),
        (("fd00:1::5",), ["10.1.0.2/29", "fd00:1::5/64"]),
        (("fd00:1::5", "10.1.0.5"), ["10.1.0.5/29", "fd00:1::5/64"]),
        (("10.1.0.5", "10.1.0.6"), ["10.1.0.5/29", "10.1.0.6/29", "fd00:1::2/64"]),
    ],
)
def test_an_endpoint_gets_the_addresses_that_are_asked_for(
    world: World, asked: tuple[str, ...], got: list[str]
) -> None:
    (endpoint,) = endpoints(world.attach("c", WEB, (join("web", *asked),)))
    assert [str(interface) for interface in endpoint.addresses] == got


BAD_JOINS: list[tuple[Join, str]] = [
    (
        join("web", "10.9.0.1"),
        "network web: 10.9.0.1 lies in none of its subnets (it has 10.1.0.0/29, fd00:1::/64)",
    ),
    (join("web", "10.1.0.0"), "address 10.1.0.0: is the network's or the broadcast address of 10.1.0.0/29"),
    (join("web", "10.1.0.1"), "address 10.1.0.1: is the gateway of network web"),
    (join("web", "10.1.0.2"), "address 10.1.0.2: is held by container first"),
    (join("web", "10.1.0.3", "10.1.0.3"), "join web: an address is asked for twice"),
    (join("web", mtu=67), "join web: an MTU is 68 to 65535 bytes, not 67"),
    (join("web", mtu=1279), "join web: IPv6 needs an MTU of 1280 bytes at least (RFC 8200)"),
    (join("web", host_ifname=IfName("uplink")), "join web: the host has a link uplink already"),
    (join("web", ways=(Way(None, None),)), "join web: a default route needs a gateway"),
]


@pytest.mark.parametrize(("bad", "why"), BAD_JOINS, ids=[why for _, why in BAD_JOINS])
def test_a_join_that_cannot_be_is_refused(world: World, bad: Join, why: str) -> None:
    world.do(world.attach("first", WEB, (join("web"),)))
    assert refusal(world.attach, "c", WEB, (bad,)) == why


def test_a_full_subnet_says_so(world: World) -> None:
    for number in range(5):
        world.do(world.attach(f"c{number}", WEB, (join("db"),)))
    why = "remove containers that are not needed, or use a larger subnet"
    assert refusal(world.attach, "c", WEB, (join("db"),)) == (
        f"join db: subnet 10.2.0.0/29 is full: every address of 10.2.0.0/29 is held ({why})"
    )
    span = Range(Address.parse("10.2.0.2"), Address.parse("10.2.0.3"))
    assert refusal(world.attach, "c", WEB, (join("db", ranges=(span,)),)) == (
        f"join db: subnet 10.2.0.0/29 is full: every address of 10.2.0.2-10.2.0.3 is held ({why})"
    )


def test_names_of_interfaces(world: World) -> None:
    wanted = (
        join("web"),
        join("db", ifname=IfName("eth0")),
        join("inner", ifname=IfName("net0")),
        join("alone"),
    )
    found = endpoints(world.attach("c", WEB, wanted))
    assert [each.ifname for each in found] == ["eth1", "eth0", "net0", "eth2"]
    assert len({each.id for each in found}) == 4
    twice = (join("web", ifname=IfName("x")), join("db", ifname=IfName("x")))
    assert (
        refusal(world.attach, "c", WEB, twice) == "attach c: two interfaces of one name are asked for: x, x"
    )


def test_ids_are_in_the_order_of_making_until_256_were_made(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"),)))
    (first,) = world.of(Endpoint)
    seen = world.container("c")

    def have(*numbers: int) -> str:
        made = tuple(
            first.replace(id=f"{first.id[:10]}{n:02x}", ifname=f"x{n}", network="db") for n in numbers
        )
        plan = plan_connect(join("web"), seen.replace(endpoints=made), world.network(join("web")))
        return endpoints(plan)[0].id[10:]

    assert have() == "00"
    assert have(0, 4) == "05"
    assert have(1, 0xFF) == "00"
    assert have(0, 0xFF) == "01"
    with pytest.raises(RequestError, match="connect c: 256 interfaces are the most"):
        have(*range(256))


def test_what_is_asked_of_a_link(world: World) -> None:
    mac = Mac.parse("02:00:00:00:00:07")
    plan = world.attach("c", WEB, (join("web", mac=mac, host_ifname=IfName("outer"), mtu=1300),))
    assert (
        CreateVeth("outer", world.row(Network, "web").device, _netns(plan), "eth0", mac, 1300) in plan.steps
    )
    notify = [
        step.path for step in plan.steps if isinstance(step, SetSysctl) and step.path.endswith("_notify")
    ]
    assert notify == ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"]


def _netns(plan: Plan) -> str:
    (container, *_) = plan.adds
    assert isinstance(container, Container)
    return container.netns


def test_a_macvlan_sits_on_its_parent(world: World) -> None:
    plan = world.attach("c", WEB, (join("wire"), join("pass")))
    wire, pass_ = endpoints(plan)
    assert (wire.host_ifname, pass_.host_ifname) == ("", "")
    parent = world.kernel.links[HOST]["uplink"].mac
    assert pass_.mac == parent
    assert CreateMacvlan("uplink", _netns(plan), "eth0", wire.mac, 9000, "bridge") in plan.steps
    assert CreateMacvlan("uplink", _netns(plan), "eth1", None, 9000, "passthru") in plan.steps


def test_a_macvlan_goes_by_its_own_name(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"), join("wire"))))
    netns = world.row(Container, "c").netns
    assert DeleteLink(netns, "eth1") in world.disconnect("c", "wire").steps
    world.do(world.disconnect("c", "wire"))
    assert set(world.kernel.links[netns]) == {"lo", "eth0"}


def test_without_addresses_a_link_has_a_mac_address_of_its_own(world: World) -> None:
    world.do(world.create_network(NetworkRequest(Name("bare"), settled=())))
    (endpoint,) = endpoints(world.attach("c", WEB, (join("bare"),)))
    assert endpoint.addresses == ()
    assert Mac.parse(str(endpoint.mac)) == endpoint.mac
    (other,) = endpoints(world.attach("d", WEB, (join("bare"),)))
    assert other.mac != endpoint.mac


# Routes --------------------------------------------------------------------------------------------------------------


def defaults(world: World, netns: str) -> set[tuple[str, str, int]]:
    """The default routes of a namespace: by which gateway, by which interface, of which metric."""
    names = {link.number: name for name, link in world.kernel.links[netns].items()}
    return {
        (str(gateway), names[number], metric)
        for to, metric, _, number, gateway in world.kernel.routes[netns]
        if isinstance(to, int)
    }


def test_the_oldest_endpoint_has_the_default_route_and_leaves_it_to_the_next(world: World) -> None:
    wanted = (join("inner"), join("db", ifname=IfName("zz0")), join("web", ifname=IfName("aa0")))
    world.do(world.attach("c", WEB, wanted))
    netns = world.row(Container, "c").netns
    assert defaults(world, netns) == {("10.2.0.1", "zz0", 0), ("fd00:1::1", "aa0", 0)}
    world.do(world.disconnect("c", "db"))
    assert defaults(world, netns) == {("10.1.0.1", "aa0", 0), ("fd00:1::1", "aa0", 0)}
    world.do(world.connect("c", join("db", metric=50)))
    assert defaults(world, netns) == {
        ("10.1.0.1", "aa0", 0),
        ("fd00:1::1", "aa0", 0),
        ("10.2.0.1", "eth1", 50),
    }
    world.do(world.disconnect("c", "web"))
    assert defaults(world, netns) == {("10.2.0.1", "eth1", 50)}


def test_a_default_route_may_be_declined(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web", default_route=False),)))
    assert defaults(world, world.row(Container, "c").netns) == set()


def test_a_namespace_that_is_gone_needs_no_routes(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"), join("db"))))
    plan = plan_disconnect("web", world.container("c"), (), alive=False)
    assert not any(isinstance(step, AddRoute) for step in plan.steps)


def test_the_same_destination_two_ways_is_the_oldest_ones(world: World) -> None:
    everywhere = Way(Prefix.parse("0.0.0.0/0"), Address.parse("10.2.0.3"))
    lost = Way(Prefix.parse("10.99.0.0/16"), None, 0, "blackhole")
    world.do(world.attach("c", WEB, (join("web", ways=(lost,)), join("db", ways=(everywhere, lost)))))
    netns = world.row(Container, "c").netns
    assert defaults(world, netns) == {("10.1.0.1", "eth0", 0), ("fd00:1::1", "eth0", 0)}
    world.do(world.disconnect("c", "web"))
    kinds = sorted(kind for _, _, kind, _, _ in world.kernel.routes[netns])
    assert kinds == ["blackhole", "unicast"]
    world.do(world.disconnect("c", "db"))
    assert world.kernel.routes[netns] == frozenset()


def test_a_route_stays_when_a_younger_endpoint_that_wants_it_too_goes(world: World) -> None:
    lost = Way(Prefix.parse("10.99.0.0/16"), None, 0, "blackhole")
    world.do(world.attach("c", WEB, (join("web", ways=(lost,)), join("db", ways=(lost,)))))
    netns = world.row(Container, "c").netns
    before = world.kernel.routes[netns]
    world.do(world.disconnect("c", "db"))
    assert world.kernel.routes[netns] == before


def test_a_link_is_brought_back_with_what_went_with_it(world: World) -> None:
    way = Way(Prefix.parse("10.99.0.0/16"), Address.parse("10.1.0.1"))
    world.do(world.attach("c", WEB, (join("web", ways=(way,)), join("db"))))
    before = world.kernel.state()
    endpoint = next(each for each in world.of(Endpoint) if each.network == "web")
    world.kernel._delete(HOST, endpoint.host_ifname)
    assert world.kernel.state() != before
    world.kernel.apply(plan_reattach(world.container("c"), endpoint, world.row(Network, "web")))
    netns = world.row(Container, "c").netns
    for name in (HOST, netns):
        assert set(world.kernel.links[name]) == set(before.links[name])
        assert {each[:3] for each in world.kernel.routes[name]} == {each[:3] for each in before.routes[name]}
    link, was = world.kernel.links[netns]["eth0"], before.links[netns]["eth0"]
    assert (link.addresses, link.mac, link.up) == (was.addresses, was.mac, was.up)


# Cables --------------------------------------------------------------------------------------------------------------


def test_a_cable_has_two_ends_and_outlives_either(world: World) -> None:
    clean = world.kernel.state()
    device = world.row(Network, "cable").device
    world.do(world.attach("one", WEB, (join("cable"),)))
    assert device in world.kernel.links[HOST]
    world.do(world.attach("two", WEB, (join("cable"),)))
    assert device not in world.kernel.links[HOST]
    why = "join cable: a cable has two ends, and one and two hold them"
    assert refusal(world.attach, "three", WEB, (join("cable"),)) == why
    world.do(world.detach("one"))
    assert device in world.kernel.links[HOST]
    world.do(world.attach("three", WEB, (join("cable"),)))
    ends = [world.kernel.links[world.row(Container, name).netns]["eth0"] for name in ("two", "three")]
    assert ends[0].peer == ends[1].number
    world.do(world.disconnect("three", "cable"))
    world.do(world.detach("two"))
    world.do(world.detach("three"))
    assert world.kernel.state() == clean


def test_a_cable_that_went_with_a_namespace_is_laid_anew(world: World) -> None:
    world.do(world.attach("one", WEB, (join("cable"),)))
    world.do(world.attach("two", WEB, (join("cable"),)))
    lost = world.row(Container, "two").netns
    world.kernel.pins -= {lost}
    world.kernel.end_namespace(lost)
    world.do(world.detach("two"))
    world.do(world.attach("three", WEB, (join("cable"),)))
    ends = [world.kernel.links[world.row(Container, name).netns]["eth0"] for name in ("one", "three")]
    assert ends[0].peer == ends[1].number
    assert all(end.up and end.addresses for end in ends)


def test_a_cable_of_which_nothing_was_seen_leaves_nothing_to_do(world: World) -> None:
    world.do(world.attach("one", WEB, (join("cable"),)))
    assert plan_disconnect("cable", world.container("one"), ()).steps == ()


# Connect -------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_connected_is_refused(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"),)))
    world.do(world.attach("h", Mode("host")))
    world.do(world.attach("s", Mode("container", "c")))
    world.do(world.attach("n", Mode("ns", FOREIGN)))
    for name, mode in (("h", "host"), ("s", "container:c"), ("n", f"ns:{FOREIGN}")):
        why = f"connect {name}: --net {mode} is not a namespace of its own"
        assert refusal(world.connect, name, join("db")) == why
    assert refusal(world.connect, "c", join("web")) == "connect c: it is on web already, as eth0"
    taken = join("db", ifname=IfName("eth0"))
    assert refusal(world.connect, "c", taken) == "connect c: it has an interface eth0 already, on web"
    world.do(world.connect("c", join("web", ifname=IfName("eth1"))))
    assert [each.network for each in world.of(Endpoint)] == ["web", "web"]


def test_one_of_two_endpoints_on_a_network_is_disconnected_by_its_name(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"),)))
    world.do(world.connect("c", join("web", ifname=IfName("eth1"))))
    seen = world.container("c")
    assert plan_disconnect("web", seen, (), "eth1").removes[0] == seen.endpoints[1]
    assert (
        refusal(plan_disconnect, "web", seen, (), "eth9") == "disconnect c: it is not on network web as eth9"
    )
    assert refusal(plan_disconnect, "db", seen, ()) == "disconnect c: it is not on network db"


# Ports ---------------------------------------------------------------------------------------------------------------


def test_ports_lead_where_the_answers_go_out(world: World) -> None:
    wanted = (
        join("inner"),
        join("db", ifname=IfName("zz0")),
        join("web", ifname=IfName("aa0")),
        join("six", ifname=IfName("bb0")),
    )
    world.do(world.attach("c", WEB, wanted, publishes("80:80", "[::]:81:80")))
    ends = {each.id: str(each.network) for each in world.of(Endpoint)}
    assert [ends[each.endpoint] for each in world.of(Publication)] == ["db", "web"]
    world.do(world.publish("c", publishes("82:80")))
    assert ends[world.of(Publication)[-1].endpoint] == "db"
    declined = (join("db", default_route=False), join("web", metric=9), join("six", metric=5))
    world.do(world.attach("d", WEB, declined, publishes("83:80", "0.0.0.0:84:80", "[::]:85:80")))
    ends = {each.id: str(each.network) for each in world.of(Endpoint)}
    assert [ends[each.endpoint] for each in world.of(Publication)[-3:]] == ["six", "web", "six"]
    world.do(world.attach("e", Mode("none")))
    world.do(world.connect("e", join("web"), publishes("86:80")))
    assert world.of(Publication)[-1].container == "e"


@pytest.mark.parametrize(
    ("joined", "port", "why"),
    [
        (
            "inner alone",
            "80:80",
            "publish 80:80/tcp: needs a network whose gateway is the host, and has inner, alone"
            " (a port cannot be published on an internal, isolated, p2p, macvlan or foreign network)",
        ),
        ("db", "8080:80", "publish 8080:80/tcp: the host port is held by container first"),
        ("db", "80:80 80-81:80-81", "publish 80-81:80-81/tcp: overlaps 80:80/tcp, which is asked for too"),
        (
            "db",
            "[::]:80:80",
            "publish [::]:80:80/tcp: c has no IPv6 address (create its network with --ipv6)",
        ),
        ("six", "0.0.0.0:80:80", "publish 0.0.0.0:80:80/tcp: c has no IPv4 address"),
    ],
)
def test_a_port_that_cannot_be_published_is_refused(world: World, joined: str, port: str, why: str) -> None:
    world.do(world.attach("first", WEB, (join("web"),), publishes("8080:80")))
    assert refusal(world.attach, "c", WEB, tuple(map(join, joined.split())), publishes(*port.split())) == why


def test_without_a_network_there_is_nothing_to_publish_from(world: World) -> None:
    world.do(world.attach("c", Mode("none")))
    assert "and has none (a port" in refusal(world.publish, "c", publishes("80:80"))


def test_ports_are_closed_as_they_were_opened(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"),), publishes("80:80", "81", "82-83:82-83/udp")))
    dynamic = next(each.publish for each in world.of(Publication) if each.publish.container_port == 81)
    assert DYNAMIC_FIRST <= dynamic.host_port <= DYNAMIC_LAST
    for text in ("80:80/udp", "80:81", "83:83/udp", "127.0.0.1:80:80", "1:81"):
        assert refusal(world.unpublish, "c", *publishes(text)).startswith(
            f"unpublish {Publish.parse(text)}: c does not publish that (it publishes 80:80/tcp, "
        )
    for text in ("82-83:82-83/udp", "81", "80:80"):
        world.do(world.unpublish("c", *publishes(text)))
    assert world.of(Publication) == []
    assert "(it publishes nothing)" in refusal(world.unpublish, "c", *publishes("80:80"))


@given(st.text("0123456789abcdef", min_size=8, max_size=32))
def test_every_dynamic_port_comes_up_once(seed: str) -> None:
    found = list(dynamic_ports(seed))
    assert sorted(found) == list(range(DYNAMIC_FIRST, DYNAMIC_LAST + 1))


# Order ---------------------------------------------------------------------------------------------------------------


def test_what_opens_comes_last_and_what_closes_comes_first(world: World) -> None:
    attach = world.attach("c", WEB, (join("web"), join("db")), publishes("80:80", "53:53/udp"))
    kinds = [type(step).__name__ for step in attach.steps]
    assert kinds[-2:] == ["ChangeElements", "ForgetFlows"]
    assert kinds.count("ChangeElements") == 1
    world.do(attach)
    for plan in (world.detach("c"), world.disconnect("c", "web"), world.unpublish("c", *publishes("80:80"))):
        assert isinstance(plan.steps[0], ChangeElements)
        assert plan.steps[0].adds == ()
        assert plan.forward
        assert type(plan.steps[1]).__name__ == "ForgetFlows"


def test_what_a_container_takes() -> None:
    world = World()
    world.do(world.create_network(network("web", "10.1.0.0/29 fd00:1::/64")))
    world.do(world.create_network(network("db", "10.2.0.0/29", icc=False)))
    ports = publishes("80:80", "127.0.0.1:8080:80", "8000-8099:8000-8099/udp", "[fd00:9::1]:81-82:91-92")
    attach = world.attach("c", WEB, (join("web"), join("db")), ports)
    world.do(attach)
    lines = ["## attach", *attach.commands(), "", "## detach", *world.detach("c").commands()]
    assert_golden("container.txt", "\n".join(line for line in lines if "conntrack" not in line) + "\n")


# Links that somebody else moves --------------------------------------------------------------------------------------


def test_a_link_is_handed_over_only_where_that_was_agreed(world: World) -> None:
    world.do(world.attach("c", WEB, (join("web"),)))
    seen = world.container("c")
    with pytest.raises(RequestError, match="hand over c: its links are ours, made by cli"):
        plan_hand_over(seen)
    with pytest.raises(NotFound):
        world.container("gone")


def test_what_was_handed_over_is_laid_on_the_host(world: World) -> None:
    world.do(world.create_network(network("own", "10.8.0.0/29", mtu=1400)))
    for name in ("web", "inner"):
        (container, endpoint, *_) = world.attach("c", WEB, (join(name),)).adds
        assert isinstance(container, Container)
        assert isinstance(endpoint, Endpoint)
        handed = container.replace(mode="handed", netns="", pinned=False, handed=True)
        row = world.row(Network, name)
        plan = plan_hand_over(ContainerSeen(handed, (endpoint,), (), (row,), ()))
        kinds = [type(step).__name__ for step in plan.steps]
        assert kinds == ["DeleteLink", "CreateVeth", *(["HairpinPort"] if row.routed else [])]


# How fast ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingress", "egress", "kinds"),
    [
        (RATE, None, ["ShapeLink"]),
        (None, RATE, ["CreateIfb", "DivertIngress", "ShapeLink"]),
        (RATE, RATE, ["ShapeLink", "CreateIfb", "DivertIngress", "ShapeLink"]),
    ],
)
def test_bandwidth_is_limited_on_the_host(
    world: World, ingress: Rate | None, egress: Rate | None, kinds: list[str]
) -> None:
    clean = world.kernel.state()
    plan = world.attach("c", WEB, (join("web", bandwidth=Bandwidth(ingress, egress)),))
    assert [name for step in plan.steps if (name := type(step).__name__) in {*kinds}] == kinds
    world.do(plan)
    world.do(world.detach("c"))
    assert world.kernel.state() == clean


def test_bandwidth_that_cannot_be_limited_is_refused(world: World) -> None:
    limited = Bandwidth(RATE, None)
    for name, driver in (("cable", "p2p"), ("wire", "macvlan")):
        why = f"join {name}: a {driver} network has no end to limit bandwidth at"
        assert refusal(world.attach, "c", WEB, (join(name, bandwidth=limited),)).startswith(why)
    small = Bandwidth(None, Rate(8000, 1513))
    why = "join web: a burst of 1513 bytes does not hold one packet of 1514"
    assert refusal(world.attach, "c", WEB, (join("web", bandwidth=small),)) == why


@pytest.mark.parametrize(
    ("bits", "burst", "made"),
    [(0, 0, None), (8, 8, Rate(8, 1)), (8_000_000, 160_000, RATE), (8, 1 << 40, Rate(8, 0xFFFFFFFF))],
)
def test_a_rate_is_made_of_bits(bits: int, burst: int, made: Rate | None) -> None:
    assert Rate.check("it", bits, burst, -14) == made
    if made is not None:
        assert made.burst <= made.limit <= 0xFFFFFFFF


@pytest.mark.parametrize(("bits", "burst"), [(0, 8), (8, 0), (7, 8), (8, 7), (-8, 8), (1 << 63, 8)])
def test_a_rate_that_lets_nothing_through_is_refused(bits: int, burst: int) -> None:
    assert (
        refusal(Rate.check, "it", bits, burst)
        == "it: a rate needs its bits in a second and a burst, both positive"
    )


def handed(world: World, *names: str, **fields: object) -> Plan:
    """Attach a container whose links somebody else moves."""
    joins = tuple(join(name) for name in names)
    seen = AttachSeen(tuple(world.network(each) for each in joins), (), None, "/pin")
    request = AttachRequest("0" * 32, Name("h"), WEB, joins, handed=True).replace(**fields)
    return plan_attach(request, seen)


def test_links_that_somebody_else_moves_are_awaited(world: World) -> None:
    plan = handed(world, "web")
    (container, endpoint) = plan.adds
    assert isinstance(container, Container)
    assert isinstance(endpoint, Endpoint)
    assert (container.netns, container.pinned, endpoint.ifname) == (AWAITED, False, f"vwi{endpoint.id}")
    assert [type(step) for step in plan.steps] == [ChangeElements]
    seen = ContainerSeen(container, (endpoint,), (), (world.row(Network, "web"),), ())
    why = "connect h: its interfaces are made for cli, which configures them (ask cli for it)"
    assert refusal(plan_connect, join("db"), seen, world.network(join("db"))) == why


def test_only_a_bridges_links_can_be_moved_by_somebody_else(world: World) -> None:
    why = "attach h: links that somebody else moves are those of a network"
    assert refusal(handed, world, mode=Mode("none")) == why
    assert refusal(handed, world, "web", netns=NetnsPath(FOREIGN)) == why
    why = "join wire: only a bridge has links that somebody else can move"
    assert refusal(handed, world, "wire") == why
