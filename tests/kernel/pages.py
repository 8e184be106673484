"""The scenarios that have a page under docs/scenarios: what is typed in each, and how a packet walks through it.

Rules: only words are here. What a page shows besides comes from a live run (``live``).
"""

from __future__ import annotations

from typing import NamedTuple

SERVE = "-- python3 -m http.server 80"
SLEEP = "-- sleep infinity"
FIXED = "192.0.2.77"


class Page(NamedTuple):
    """One scenario. ``typed`` are vethwork commands; ``shown`` the containers whose side is shown.

    ``ports``: the bridge's view of its ports tells something. ``stranger`` names a namespace that somebody else made.
    """

    name: str
    title: str
    intro: str
    typed: tuple[str, ...]
    shown: tuple[str, ...]
    walk: tuple[str, ...]
    ports: bool = False
    stranger: str = ""


PAGES = (
    Page(
        "one-port",
        "One bridge network, one published port",
        "The network that is there when nothing is said, made on first use, and a container on it that serves the world.",
        (f"run -d --name web -p 8080:80 {SERVE}",),
        ("web",),
        (
            "**In.** The neighbour connects to 192.0.2.2:8080. In `prerouting` the address is local, so `publish` looks "
            "`tcp . 8080` up in `port4` and rewrites the destination to web's own address and port 80. In `forward` the "
            "packet comes from no bridge of ours, so `forward_to` decides: `to_open` lets pass what was rewritten (`ct "
            "status dnat`). web sees the neighbour's own address. Its answer is `established`, and conntrack puts "
            "192.0.2.2:8080 back as its source.",
            "**Out.** What web sends must carry its own MAC and IP address (`macs`, `speakers4`) to get past its bridge "
            "port. In `forward` it goes to `from_open`, which accepts what does not lead to another of our bridges, and in "
            "`postrouting` it takes on the host's address, because its own is in `masquerade4`.",
            "**Not in.** The neighbour that routes straight at web's address, having learned of it, meets `to_open` too: its "
            "packet was not rewritten, and is dropped.",
            "**Round.** web asks 192.0.2.2:8080 and so itself. The packet is rewritten and leaves by the bridge that it came "
            "from, so `hairpin4` gives it the gateway's address; otherwise the answer would never pass the host, and would "
            "come from the wrong address.",
        ),
        ports=True,
    ),
    Page(
        "dual-stack",
        "Dual stack",
        "A network with IPv4 and IPv6. The same rules and the same code; only the sets come in pairs.",
        ("network create blue --ipv6", f"run -d --name web --net blue -p 8080:80 {SERVE}"),
        ("web",),
        (
            "**In.** The neighbour connects to [2001:db8:1::2]:8080. `publish` looks `tcp . 8080` up in `port6` instead of "
            "`port4`; all else is as in [one port](one-port.md), with `ct status dnat` for both versions in the same rules.",
            "**Neighbour discovery.** At its bridge port web may ask for others under its own address (`speakers6`) or its "
            "link-local one, and may say *that address is here* only of its own (`targets6` holds the target of a neighbour "
            "advertisement). Router advertisements and redirects from a container die here.",
            "**Out.** The prefix is unique local (RFC 4193), made from the network's id. The world has no route to it, so it "
            "is in `masquerade6`. The host listens to its own router still, although it forwards now: `accept_ra` is 2.",
        ),
    ),
    Page(
        "internal",
        "An internal network",
        "Containers reach each other and the gateway's address, and nothing beyond it.",
        (
            "network create db --internal",
            f"run -d --name primary --net db {SLEEP}",
            f"run -d --name replica --net db {SLEEP}",
        ),
        ("primary",),
        (
            "**Within.** primary to replica is bridged; with br_netfilter it meets `forward` as well, where `from_closed` "
            "finds the pair of the bridge with itself in `peers`.",
            "**To the host.** `input_from` sends what comes from this bridge to `gateway_only`: the address must be one of "
            "the interface that the packet came in by. So the gateway answers, and the host's other addresses do not.",
            "**Beyond.** A container has no default route. One that makes itself one meets `from_closed`, and is dropped; "
            "what comes from outside meets `drop` in `forward_to`. There is nothing to masquerade.",
        ),
    ),
    Page(
        "isolated",
        "An isolated network",
        "A switch and nothing else: the bridge has no address, so the host is not on the network.",
        (
            "network create club --isolated",
            f"run -d --name carol --net club {SLEEP}",
            f"run -d --name dave --net club {SLEEP}",
        ),
        ("carol",),
        (
            "**Within.** carol to dave is bridged, as on any network; each must speak as itself (`macs`, `speakers4`).",
            "**To the host.** The bridge has no IPv4 address and no IPv6 at all. A container that sends a frame to the "
            "bridge's MAC address and an address of the host meets `drop` in `input_from`.",
            "**Beyond.** There is no route, so the kernel says *network is unreachable* before a packet is made. One that "
            "is made by hand meets `from_closed`.",
        ),
    ),
    Page(
        "icc-no",
        "Containers that may not talk to each other",
        "`--icc no`: guests of one network reach the world, and each other only by published ports.",
        (
            "network create guests --icc no",
            f"run -d --name ann --net guests -p 8080:80 {SERVE}",
            f"run -d --name ben --net guests {SLEEP}",
        ),
        ("ann",),
        (
            "**Between two guests.** Their bridge ports are in `loners`. The bridge's own `forward` chain drops a frame that "
            "comes from one and goes to another, so this holds with and without br_netfilter, for ARP as for IP.",
            "**By a published port.** ben asks 192.0.2.2:8080. The frame goes to the gateway, so it is not bridged; it is "
            "rewritten, and `from_open` accepts it for `ct status dnat`. With br_netfilter the kernel bridges it all the "
            "same once it is rewritten; then `forward` has put the mark on it (the bridge is in `mirrors`), and the "
            "bridge's `forward` chain lets the mark pass.",
            "**The pair that is not there.** `peers` does not hold the bridge with itself, as it does on other networks.",
        ),
        ports=True,
    ),
    Page(
        "masquerade",
        "Masquerade: a fixed source, or none",
        "Under which address does a network leave? The host's is the default; here are the two other answers.",
        (
            f"network create fixed --masquerade {FIXED}",
            f"run -d --name hana --net fixed {SLEEP}",
            "network create plain --masquerade no",
            f"run -d --name ivan --net plain {SLEEP}",
        ),
        ("hana", "ivan"),
        (
            f"**A fixed source.** What leaves hana's subnet for the world gets {FIXED} in `postrouting`, by `source4`. The "
            "host must have the address, or have it routed to it; vethwork does not add it.",
            "**None.** ivan's subnet is in none of the sets that `postrouting` asks, so its packets leave as they are. An "
            "answer comes only if the world has a route to the subnet that leads to this host; and of what comes, only "
            "answers and published ports pass `to_open`.",
            "**At home.** On the way to another container of its network neither is rewritten: `postrouting` returns for what "
            "goes to one of our bridges. What is for the host itself never comes there.",
        ),
    ),
    Page(
        "ports",
        "Ports: bound, in ranges, shifted",
        "What `-p` can say, on one container.",
        (
            "run -d --name web -p 127.0.0.1:8080:80 -p 192.0.2.2:8081:80 -p 5000-5099:5000-5099/udp "
            f"-p 9000-9002:7000-7002 {SERVE}",
        ),
        ("web",),
        (
            "**Bound to loopback.** The host asks 127.0.0.1:8080. `output` looks it up in `port_at4`, under the address. The "
            "packet leaves with source 127.0.0.1, which `route_localnet` on the bridge allows and `postrouting` turns into "
            "the gateway's address. From a wire, nobody gets there: `prerouting` returns for 127.0.0.0/8 before any look-up, "
            "and from a container `guard` drops it.",
            "**Bound to an address.** Outside, 192.0.2.2:8081 is looked up only if the interface that the packet came in by "
            "holds the address (`fib daddr . iif type local`); a neighbour on another wire gets *connection refused*.",
            "**A range** whose ports stay the same is one element of `range4`, a hundred ports or ten thousand. **A shifted "
            "range** is one element of `port4` for each port, for nftables cannot add to a port number.",
        ),
    ),
    Page(
        "cable",
        "A cable between two containers",
        "`--driver p2p`: a veth pair, one end in each of two containers. No bridge, no address on the host, no firewall.",
        (
            "network create cable --driver p2p",
            f"run -d --name ada --net cable {SLEEP}",
            f"run -d --name bob --net cable {SLEEP}",
        ),
        ("ada", "bob"),
        (
            "**Laid.** ada gets one end as soon as it comes. The other is parked on the host, down, until bob comes and it is "
            "moved and renamed. A third is told who holds the ends.",
            "**A packet** that goes into one end comes out at the other. The host is not on its way, so there is no rule, and "
            "no table is made for it.",
        ),
    ),
    Page(
        "two-networks",
        "Two networks, and a container on both",
        "Networks do not see each other. What is on both decides itself what it passes on.",
        (
            "network create front",
            "network create back",
            f"run -d --name web --net front --net back -p 8080:80 {SERVE}",
            f"run -d --name db --net back {SLEEP}",
        ),
        ("web", "db"),
        (
            "**Between the networks.** A packet from back's bridge to front's goes to `from_open` in `forward`. The pair of "
            "the two bridges is not in `peers`, and the way out is one of our bridges: dropped. A published port is the way "
            "round: it was rewritten, and passes.",
            "**web** has an interface on each, and its default route by the first that was named; the published port leads to "
            "the first, too. What comes in by one may be answered by the other, so its `rp_filter` is loose.",
            "**Each network** is a handful of elements. None of the rules knows how many there are.",
        ),
    ),
    Page(
        "modes",
        "The modes: host, none, container:NAME, ns:PATH",
        "`--net` takes networks, or one of four words that stand for a namespace.",
        (
            f"run -d --name web {SERVE}",
            f"run -d --name sidecar --net container:web {SLEEP}",
            f"run -d --name alone --net none {SLEEP}",
            f"run -d --name native --net host {SLEEP}",
            f"run -d --name guest --net ns:/run/netns/lab {SLEEP}",
        ),
        ("web", "sidecar", "alone"),
        (
            "**container:web** is web's namespace: the same path, so the same interfaces, addresses and ports; 127.0.0.1 is "
            "the same for both. The namespace is pinned by a bind mount, so it outlives web's process, and web can be started "
            "again. It goes when the last who shares it is removed.",
            "**none** is a namespace with a loopback interface that is up. **host** is no namespace at all. **ns:PATH** is "
            "one that somebody else made; nothing in it is touched.",
            "Only web has elements in the ruleset. The others have no interface of their own that a rule could be about.",
        ),
        stranger="lab",
    ),
)

INDEX_WHAT = (
    "What vethwork sets up, one case a page: what is typed, the commands that a person would have typed instead, what the "
    "kernel holds then, and how a packet walks through it. The host has 192.0.2.2 and 2001:db8:1::2; a neighbour on its "
    "wire has 192.0.2.3 and 2001:db8:1::3."
)
INDEX_HOW = (
    "Each page is made by doing it in a lab, with {versions}, and a test compares it with what happens today. Another "
    "test pastes the plan into a shell in a fresh lab, and finds the same there. Left out are the loopback interface, "
    "interface indexes, and link-local addresses."
)
EMPTY_TITLE = "The empty ruleset, chain by chain"
EMPTY_INTRO = (
    "The two tables as they are before the first container comes. The chains never change: a network, a container or a port "
    "is only ever an element of one of the sets. The other pages therefore show the sets that hold something, and no "
    "chains."
)
EMPTY_TYPED = ("network create first --isolated", "network rm first")

SETS = {
    "ports": "the host's ends of the veth pairs: the bridge ports of containers",
    "loners": "those of them that may not talk to each other (`--icc no`)",
    "macs": "the one MAC address that may speak at a port",
    "speakers4": "the IPv4 addresses that may speak at a port, in ARP too",
    "speakers6": "the same for IPv6",
    "targets6": "the addresses that a neighbour advertisement from a port may be about",
    "bridges": "our bridges",
    "peers": "which bridge may reach which, forwarded; itself, unless `--icc no`",
    "mirrors": "bridges that a rewritten packet may go back to where it came from",
    "guarded": "the IP versions in which this host forwards for our containers only",
    "input_from": "what becomes of packets to the host, by the bridge that they come from",
    "forward_from": "what becomes of packets that pass through, by the bridge that they come from",
    "forward_to": "and by the bridge that they go to",
    "masquerade": "subnets that leave under the host's address",
    "source": "subnets that leave under a fixed address",
    "hairpin": "subnets whose packets to a published port of their own network take the gateway's address",
    "port": "published ports of every address of the host, and where they lead",
    "port_at": "published ports of one address",
    "range": "published ranges of every address; the port stays the same",
    "range_at": "published ranges of one address",
    "traffic": "published ports, with what each has carried",
    "traffic_at": "the same of ports of one address",
}
"""By the name of the set; a number for the IP version is left away."""

CHAINS = {
    (
        "bridge",
        "prerouting",
    ): "The first that a frame meets, at priority `filter` (-200), before br_netfilter and everything "
    "else. A port of a container goes to `port`. A link of our group that is not in `ports` is nobody's yet, or no longer: "
    "it is mute.",
    (
        "bridge",
        "port",
    ): "Who speaks here? The MAC address must be the container's, and so must the IPv4 address, in ARP too "
    "(0.0.0.0 is a probe for an address, RFC 5227). IPv6 goes on in `port6`. Anything else has no business here.",
    (
        "bridge",
        "port6",
    ): "Nobody but the host plays the router. A neighbour advertisement goes to `advert6`. Otherwise the "
    "source is the container's own address, link-local, or still none, for the two messages that are sent from there.",
    (
        "bridge",
        "advert6",
    ): "An advertisement says *that address is here*: it must be the container's own, or link-local. The "
    "target stands 8 bytes into the ICMPv6 message (RFC 4861 4.4).",
    (
        "bridge",
        "forward",
    ): "`--icc no`: from one such port to another, nothing. The mark is on packets to a published port, "
    "which br_netfilter leads back to the bridge that they came from; hence after it, at priority 50.",
    (
        "inet",
        "guard",
    ): "Before conntrack. `route_localnet` is on for our bridges, so that the host can reach published ports by "
    "127.0.0.1; this closes what it would open, the host's loopback to the containers.",
    (
        "inet",
        "prerouting",
    ): "DNAT for what comes in. Is it for an address of this host, and is the port published? Bound to one "
    "address, it must have come in by the interface that holds the address, unless a container asks.",
    (
        "inet",
        "output",
    ): "DNAT for what the host itself sends to one of its addresses. ::1 is left alone, for IPv6 has nothing "
    "like `route_localnet`: better refused at once than half-way.",
    (
        "inet",
        "publish",
    ): "The look-up by protocol and port: single ports first, then ranges. What is found is rewritten, and the "
    "rest goes on.",
    ("inet", "publish_at"): "The same by address, protocol and port.",
    (
        "inet",
        "input",
    ): "What is for the host. Answers first, then by the bridge that it came from; a network that is neither "
    "internal nor isolated is not in the map, and may speak to the host.",
    (
        "inet",
        "gateway_only",
    ): "An internal network: the gateway's address, and neighbour discovery, which looks for it.",
    (
        "inet",
        "forward",
    ): "What passes through. The first rules only count and mark, see the bridge's `forward`. Then answers; then where it "
    "comes from; then where it goes to; and last, where forwarding was off until we turned it on, nothing else.",
    (
        "inet",
        "count",
    ): "What published single ports carry, both ways: an element for each, found by where the flow was sent to before it was "
    "rewritten. Nothing is decided here.",
    (
        "inet",
        "from_open",
    ): "From a network with a way out: published ports, the bridges it may reach, no other bridge, and the "
    "world.",
    (
        "inet",
        "from_closed",
    ): "From an internal or isolated network: the bridges it may reach, that is itself.",
    (
        "inet",
        "to_open",
    ): "Into a network, from outside: what was rewritten by a published port. Whoever routes straight at a "
    "container is dropped here.",
    (
        "inet",
        "postrouting",
    ): "SNAT. To a bridge: the host's loopback and hairpins take the gateway's address, and the rest "
    "stays as it is. To the world: a fixed address, the host's, or none.",
}
