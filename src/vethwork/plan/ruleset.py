"""The whole ruleset, once: two tables whose chains never change. Networks, containers and ports are elements of their sets.

How to read it, in the order a packet meets it:

* ``table bridge vethwork``, as a frame enters by a container's port: only the container's own MAC and IP addresses may
  speak, and nobody may play the router. This is the anti-spoofing, in its own hook before everything else.
* ``guard``: what comes from a container never reaches 127.0.0.0/8, although ``route_localnet`` is on for the bridges.
* ``prerouting`` and ``output``: a published port is looked up and rewritten, only if the packet was for this host.
* ``input``: which containers may speak to the host at all.
* ``count``: what a published port carries, both ways, as it is forwarded; ranges are not counted.
* ``forward``: established first; then by the bridge it came from; then by the bridge it goes to.
* ``postrouting``: what must come back through us gets our address: the host's loopback, hairpins, and the outside world.

Rules: no rule names a container, a network or a port. IPv4 and IPv6 are made by the same functions.
"""

from __future__ import annotations

from vethwork.model.ruleset import (
    Chain,
    Hook,
    Masquerade,
    Match,
    Nat,
    Rule,
    Set,
    SetMark,
    Table,
    Verdict,
    VerdictMap,
)
from vethwork.model.steps import LINK_GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.ruleset import Statement

TABLE = "vethwork"

ACCEPT, DROP, RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")
ESTABLISHED = Match(("ct state",), "established,related")
PUBLISHED = Match(("ct status",), "dnat")
PORT = ("meta l4proto", "th dport")
HAS_PORTS = Match(("meta l4proto",), ("tcp", "udp", "sctp"))

# include/uapi/linux/netfilter_ipv4.h NF_IP_PRI_*, netfilter_bridge.h NF_BR_PRI_FILTER_BRIDGED
MARK = 0x76657468
"""What a published packet carries that goes back to the bridge it came from ("veth" in ASCII)."""
RAW, DSTNAT, FILTER, SRCNAT, BRIDGE_FILTER, BRIDGE_LATE = -300, -100, 0, 100, -200, 50


def _rule(*statements: Statement) -> Rule:
    return Rule(statements)


def _ip(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _family_sets(version: int) -> tuple[Set, ...]:
    address = f"ipv{version}_addr"
    port = ("inet_proto", "inet_service")
    return (
        Set(f"masquerade{version}", (address,), interval=True),
        Set(f"source{version}", (address,), (address,), interval=True),
        Set(f"hairpin{version}", ("ifname", address), interval=True),
        Set(f"port{version}", port, (address, "inet_service")),
        Set(f"port_at{version}", (address, *port), (address, "inet_service")),
        Set(f"range{version}", port, (address,), interval=True),
        Set(f"range_at{version}", (address, *port), (address,), interval=True),
    )


def _publish_chain(name: str, prefix: str, address: bool) -> Chain:
    """Look a packet's destination up, single ports before ranges, and rewrite it."""
    rules: list[Rule] = []
    for version in (4, 6):
        key = (f"{_ip(version)} daddr", *PORT) if address else PORT
        family = () if address else (Match(("meta nfproto",), f"ipv{version}"),)
        nats = [Nat("dnat", version, key, f"{kind}{prefix}{version}") for kind in ("port", "range")]
        rules += [_rule(*family, HAS_PORTS, nat) for nat in nats]
    return Chain(name, tuple(rules))


def _traffic_sets() -> list[Set]:
    """What single ports carry, by where a flow was sent to."""
    keys = (("traffic", "nf_proto"), ("traffic_at4", "ipv4_addr"), ("traffic_at6", "ipv6_addr"))
    return [Set(name, (kind, "inet_proto", "inet_service"), counter=True) for name, kind in keys]


def _count_chain() -> Chain:
    """Find the one element that a packet of a published flow belongs to, whichever way it goes.

    Ranges are not counted: to look every packet up in a set of ranges takes a microsecond.
    """
    wheres = (
        ("meta nfproto", "traffic"),
        ("ct original ip daddr", "traffic_at4"),
        ("ct original ip6 daddr", "traffic_at6"),
    )
    # nft takes the flow's port for one only behind the protocols that have ports.
    rules = [
        _rule(HAS_PORTS, Match((where, "meta l4proto", "ct original proto-dst"), f"@{name}"), RETURN)
        for where, name in wheres
    ]
    return Chain("count", tuple(rules))


LOCAL = Match(("fib daddr type",), "local")

INET = Table(
    "inet",
    TABLE,
    (
        Set("bridges", ("ifname",)),
        Set("peers", ("ifname", "ifname")),
        Set("mirrors", ("ifname", "ifname")),
        Set("guarded", ("nf_proto",)),
        Set("input_from", ("ifname",), ("verdict",)),
        Set("forward_from", ("ifname",), ("verdict",)),
        Set("forward_to", ("ifname",), ("verdict",)),
        *_family_sets(4),
        *_family_sets(6),
        *_traffic_sets(),
    ),
    (
        Chain(
            "guard",
            (_rule(Match(("iifname",), "@bridges"), Match(("ip daddr",), "127.0.0.0/8"), DROP),),
            Hook("filter", "prerouting", RAW),
        ),
        _publish_chain("publish", "", address=False),
        _publish_chain("publish_at", "_at", address=True),
        Chain(
            "prerouting",
            (
                _rule(Match(("ip daddr",), "127.0.0.0/8"), RETURN),
                _rule(LOCAL, Verdict("jump publish")),
                # A port bound to one address: only through the interface that holds the address, unless a container
                # asks. Otherwise any neighbour on any wire could reach it (the weak host model).
                _rule(Match(("iifname",), "@bridges"), LOCAL, Verdict("jump publish_at")),
                _rule(Match(("fib daddr . iif type",), "local"), Verdict("jump publish_at")),
            ),
            Hook("nat", "prerouting", DSTNAT),
        ),
        Chain(
            "output",
            (
                # IPv6 has no route_localnet: better refused at once than half-way.
                _rule(Match(("ip6 daddr",), "::1"), RETURN),
                _rule(LOCAL, Verdict("jump publish")),
                _rule(LOCAL, Verdict("jump publish_at")),
            ),
            Hook("nat", "output", DSTNAT),
        ),
        Chain(
            "gateway_only",
            (
                _rule(Match(("fib daddr . iif type",), "local"), ACCEPT),
                _rule(Match(("icmpv6 type",), ("nd-neighbor-solicit", "nd-neighbor-advert")), ACCEPT),
                _rule(DROP),
            ),
        ),
        Chain(
            "input",
            (_rule(ESTABLISHED, ACCEPT), _rule(VerdictMap(("iifname",), "input_from"))),
            Hook("filter", "input", FILTER),
        ),
        Chain(
            "from_open",
            (
                _rule(PUBLISHED, ACCEPT),
                _rule(Match(("iifname", "oifname"), "@peers"), ACCEPT),
                _rule(Match(("oifname",), "@bridges"), DROP),
                _rule(ACCEPT),
            ),
        ),
        Chain("from_closed", (_rule(Match(("iifname", "oifname"), "@peers"), ACCEPT), _rule(DROP))),
        Chain("to_open", (_rule(PUBLISHED, ACCEPT), _rule(DROP))),
        _count_chain(),
        Chain(
            "forward",
            (
                _rule(PUBLISHED, Verdict("jump count")),
                # With br_netfilter, the kernel bridges what is rewritten to the bridge that it came from; the mark lets
                # it pass between two ports that may not talk to each other otherwise.
                _rule(PUBLISHED, Match(("iifname", "oifname"), "@mirrors"), SetMark(MARK)),
                _rule(ESTABLISHED, ACCEPT),
                _rule(VerdictMap(("iifname",), "forward_from")),
                _rule(VerdictMap(("oifname",), "forward_to")),
                # What a port led to somebody else's container is no routing for strangers.
                _rule(PUBLISHED, ACCEPT),
                # Where forwarding was off until we turned it on, this host still routes for nobody else.
                _rule(Match(("meta nfproto",), "@guarded"), DROP),
            ),
            Hook("filter", "forward", FILTER),
        ),
        Chain(
            "postrouting",
            (
                _rule(Match(("oifname",), "@bridges"), Match(("ip saddr",), "127.0.0.0/8"), Masquerade()),
                _rule(PUBLISHED, Match(("oifname", "ip saddr"), "@hairpin4"), Masquerade()),
                _rule(PUBLISHED, Match(("oifname", "ip6 saddr"), "@hairpin6"), Masquerade()),
                _rule(Match(("oifname",), "@bridges"), RETURN),
                _rule(Nat("snat", 4, ("ip saddr",), "source4")),
                _rule(Nat("snat", 6, ("ip6 saddr",), "source6")),
                _rule(Match(("ip saddr",), "@masquerade4"), Masquerade()),
                _rule(Match(("ip6 saddr",), "@masquerade6"), Masquerade()),
            ),
            Hook("nat", "postrouting", SRCNAT),
        ),
    ),
)

# The target of a neighbour advertisement (RFC 4861 4.4) stands 8 bytes into the ICMPv6 message.
TARGET = "@th,64,128"
IPV6, ICMP6 = Match(("meta protocol",), "ip6"), "icmpv6 type"

BRIDGE = Table(
    "bridge",
    TABLE,
    (
        Set("ports", ("ifname",)),
        Set("loners", ("ifname",)),
        Set("macs", ("ifname", "ether_addr")),
        Set("speakers4", ("ifname", "ipv4_addr")),
        Set("speakers6", ("ifname", "ipv6_addr")),
        Set("targets6", ("ifname", "integer"), typeof=("iifname", TARGET)),
    ),
    (
        Chain(
            "advert6",
            (
                _rule(Match(("iifname", TARGET), "@targets6"), ACCEPT),
                _rule(Match(("@th,64,16",), "0xfe80", mask="0xffc0"), ACCEPT),
                _rule(DROP),
            ),
        ),
        # meta protocol, not ether type: a VLAN tag must not hide what is inside.
        Chain(
            "port6",
            (
                _rule(IPV6, Match((ICMP6,), ("nd-router-advert", "nd-redirect")), DROP),
                _rule(IPV6, Match((ICMP6,), "nd-neighbor-advert"), Verdict("goto advert6")),
                _rule(Match(("iifname", "ip6 saddr"), "@speakers6"), ACCEPT),
                _rule(Match(("ip6 saddr",), "fe80::/10"), ACCEPT),
                _rule(
                    Match(("ip6 saddr",), "::"),
                    Match((ICMP6,), ("nd-neighbor-solicit", "mld2-listener-report")),
                    ACCEPT,
                ),
                _rule(DROP),
            ),
        ),
        Chain(
            "port",
            (
                _rule(Match(("iifname", "ether saddr"), "@macs", negate=True), DROP),
                _rule(Match(("iifname", "ip saddr"), "@speakers4"), ACCEPT),
                _rule(Match(("iifname", "arp saddr ip"), "@speakers4"), ACCEPT),
                _rule(Match(("arp saddr ip",), "0.0.0.0"), ACCEPT),
                _rule(IPV6, Verdict("goto port6")),
                _rule(DROP),
            ),
        ),
        Chain(
            "prerouting",
            (
                _rule(Match(("iifname",), "@ports"), Verdict("goto port")),
                # A link of ours that is nobody's yet, or no longer, is mute.
                _rule(Match(("iifgroup",), str(LINK_GROUP)), DROP),
            ),
            Hook("filter", "prerouting", BRIDGE_FILTER),
        ),
        # After br_netfilter (priority 0), by when the mark is set.
        Chain(
            "forward",
            (
                _rule(
                    Match(("meta mark",), f"0x{MARK:08x}", negate=True),
                    Match(("iifname",), "@loners"),
                    Match(("oifname",), "@loners"),
                    DROP,
                ),
            ),
            Hook("filter", "forward", BRIDGE_LATE),
        ),
    ),
)

TABLES = (BRIDGE, INET)
