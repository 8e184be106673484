"""The doctor: what on this host helps, hinders or endangers container networks, and what to do about it.

Rules: it changes nothing, needs no network of ours to exist, and looks at other programs' firewalls only to name the chain
that defeats us and the command that mends it; running that is the administrator's decision.
"""

from __future__ import annotations

import os

from vethwork.engine.external_links import is_awaited
from vethwork.engine.host_binding import ADVICE
from vethwork.engine.operation import mark_of, stuck
from vethwork.errors import VethworkError
from vethwork.kernel import sysctl
from vethwork.kernel.host_state import see_host
from vethwork.kernel.table_owner import Way
from vethwork.maintenance.gc import stray_links
from vethwork.maintenance.repair import ruleset_differs
from vethwork.model.record import Record
from vethwork.plan.ruleset import TABLE, TABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.engine.engine import Engine
    from vethwork.model.network import Network
    from vethwork.model.state import HostSeen
    from vethwork.wire.nft.chains import BaseChain

OK, NOTE, PROBLEM = "ok", "note", "problem"
BRIDGE_CALLS = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}
ROOM_BYTES = 16 << 20
"""What the state file and its log may come to need; each grows by some hundred bytes for a container."""


class Finding(Record):
    """One thing that was looked at. ``level`` is ``ok``, ``note`` or ``problem``; ``advice`` a command or a sentence."""

    level: str
    subject: str
    found: str
    advice: str = ""


def examine(engine: Engine) -> tuple[Finding, ...]:
    """Look at everything. Raises nothing that concerns a single look: it becomes a finding."""
    seen = see_host(engine.kernel)
    found: list[Finding] = []
    looks: tuple[Callable[[Engine, HostSeen], Iterator[Finding]], ...] = (
        _records,
        _bridge_netfilter,
        _forwarding,
        _ruleset,
        _networks,
        _containers,
        _foreign_firewalls,
        _leftovers,
        _room,
    )
    for look in looks:
        try:
            found += look(engine, seen)
        except VethworkError as error:
            found.append(
                Finding(PROBLEM, look.__name__.strip("_").replace("_", " "), error.message, error.hint)
            )
    return tuple(found)


def _records(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    if engine.store.host() not in (0, engine.kernel.host):
        found = (
            f"{engine.store.path} is about another network namespace: what follows compares it with this one"
        )
        yield Finding(PROBLEM, "records", found, ADVICE)


def _bridge_netfilter(_: Engine, __: HostSeen) -> Iterator[Finding]:
    for version, path in BRIDGE_CALLS.items():
        value = sysctl.read(path)
        subject = f"br_netfilter, IPv{version}"
        if value is None:
            yield Finding(OK, subject, "not loaded: traffic within a bridge never meets the IP firewall")
        elif value == "0":
            yield Finding(OK, subject, "off: traffic within a bridge does not meet the IP firewall")
        else:
            yield Finding(
                OK,
                subject,
                "on: traffic within a bridge meets the IP firewall too; ours lets it pass, others' may not",
                f"if another program's rules stand in the way: sysctl -w net.{path.replace('/', '.')}=0",
            )


def _forwarding(engine: Engine, seen: HostSeen) -> Iterator[Finding]:
    ours = {each.version for each in engine.store.forwarding()}
    wanted = {version for network in engine.networks() if network.routed for version in network.versions}
    for version in (4, 6):
        subject = f"forwarding, IPv{version}"
        if version == 6 and not seen.ipv6:
            yield Finding(NOTE, subject, "this kernel has no IPv6")
        elif version not in seen.forwarding:
            level = PROBLEM if version in wanted else OK
            advice = "vethwork restore" if version in wanted else ""
            yield Finding(
                level,
                subject,
                "off" + (", and a network needs it" if advice else ": no network needs it"),
                advice,
            )
        elif version in ours:
            yield Finding(
                NOTE,
                subject,
                "on, and was off until vethwork turned it on: what is not for a container is still not forwarded",
                "to forward for others too, turn it on in /etc/sysctl.d: from the next boot on it is not ours to guard",
            )
        else:
            yield Finding(OK, subject, "on")


def _ruleset(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    comment = engine.kernel.nft.comment(TABLES[-1])
    if comment is not None and comment != mark_of(engine.root):
        yield Finding(
            PROBLEM, "ruleset", f"the table belongs to another engine: {comment}", "set VETHWORK_ROOT to that"
        )
    elif ruleset_differs(engine):
        yield Finding(
            PROBLEM,
            "ruleset",
            "is not what the records say: somebody flushed or changed it",
            "vethwork restore",
        )
    elif not engine.networks():
        yield Finding(OK, "ruleset", "empty: there are no networks")
    else:
        yield Finding(
            OK,
            "ruleset",
            f"is what the records say; {_protection(engine)}",
        )


def _protection(engine: Engine) -> str:
    """What keeps others from changing the ruleset, or brings it back."""
    if engine.kernel.nft.is_owned(TABLES):
        return "the running service owns it: nobody else can change or flush it"
    if Way(engine.owner_path).is_open():
        return "the running service puts it back if somebody changes it (this kernel, older than 6.9, knows no owner)"
    return "it comes back with the next command if somebody flushes it"


def _networks(engine: Engine, seen: HostSeen) -> Iterator[Finding]:
    for network in engine.networks():
        subject = f"network {network.name}"
        if network.driver == "bridge" and network.device not in seen.links:
            yield Finding(PROBLEM, subject, f"its bridge {network.device} is gone", "vethwork restore")
        elif clash := _overlap(engine, network):
            yield Finding(
                PROBLEM, subject, f"its subnet overlaps a route of the host: {clash}", "move one of the two"
            )
        else:
            yield Finding(
                OK,
                subject,
                f"{network.driver} {network.device}, {len(engine.store.endpoints_on(network.name))} on it",
            )


def _overlap(engine: Engine, network: Network) -> str:
    """A route by another link that leads into the network's subnet: a VPN that came up later, for one."""
    door = engine.kernel.door("")
    bridge = door.link(network.device)
    for route in door.routes():
        for subnet in network.subnets:
            foreign = bridge is None or route.oif != bridge.index
            if (
                network.driver == "bridge"
                and foreign
                and route.prefix.length >= 8
                and route.prefix.overlaps(subnet.prefix)
            ):
                return str(route.prefix)
    return ""


def _containers(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    door = engine.kernel.door("")
    for container in engine.containers():
        subject = f"container {container.name}"
        ends = [
            endpoint.host_ifname
            for endpoint in engine.store.endpoints_of(container.name)
            if endpoint.host_ifname
        ]
        missing = [ifname for ifname in ends if not is_awaited(container) and door.link(ifname) is None]
        if not engine.lives(container):
            yield Finding(PROBLEM, subject, f"its namespace {container.netns} is gone", "vethwork gc")
        elif missing:
            yield Finding(PROBLEM, subject, f"its link {', '.join(missing)} is gone", "vethwork restore")
        else:
            yield Finding(OK, subject, f"--net {container.mode}")


def _foreign_firewalls(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    chains = [chain for chain in engine.kernel.nft.base_chains() if chain.table != TABLE]
    bridges = [network.device for network in engine.networks() if network.routed]
    for chain in chains:
        if chain.drops and chain.hook == "forward":
            advice = (
                "; ".join(_let_pass(chain, bridge) for bridge in bridges)
                or "nothing yet: there are no networks"
            )
            yield Finding(
                PROBLEM,
                f"firewall of {chain.table}",
                f"chain {_name(chain)} drops what it does not know",
                advice,
            )
        elif chain.drops and chain.hook == "input":
            found = f"chain {_name(chain)} drops what it does not know: containers may not reach the host"
            yield Finding(NOTE, f"firewall of {chain.table}", found)
    if any(chain.table == "firewalld" and chain.hook == "forward" for chain in chains):
        advice = "; ".join(
            f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}" for bridge in bridges
        )
        yield Finding(
            NOTE, "firewalld", "rejects what is forwarded between zones that it does not know", advice
        )


def _name(chain: BaseChain) -> str:
    return f"{chain.family} {chain.table} {chain.name}"


def _let_pass(chain: BaseChain, bridge: str) -> str:
    insert = f"nft insert rule {_name(chain)}"
    return f'{insert} iifname "{bridge}" accept; {insert} oifname "{bridge}" accept'


def _leftovers(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    strays = stray_links(engine)
    if strays:
        names = ", ".join(command.rpartition(" ")[2] for step in strays for command in step.describe())
        yield Finding(PROBLEM, "leftovers", f"links that no record knows: {names}", "vethwork gc")
    whys = stuck(engine.store)
    for number, plan in engine.store.intents():
        if number in whys:
            what = "finished" if plan.forward else "taken back"
            said = f"{plan.verb} {plan.subject} could not be {what}: {whys[number]}"
            yield Finding(PROBLEM, "leftovers", said, "mend that; then 'vethwork gc' goes on with it")
            continue
        yield Finding(
            NOTE,
            "leftovers",
            f"{plan.verb} {plan.subject} is under way, or died; the next command settles it",
        )


def _room(engine: Engine, _: HostSeen) -> Iterator[Finding]:
    system = os.statvfs(engine.root)
    left = system.f_bavail * system.f_frsize
    if left < ROOM_BYTES:
        found = (
            f"{left >> 10} KiB left on the file system of {engine.root}: soon nothing can be put on record"
        )
        yield Finding(PROBLEM, "records", found, "make room there")
