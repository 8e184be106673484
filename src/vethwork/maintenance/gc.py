"""Keeping the machine in order: gc removes what nobody remembers, restore brings back what is remembered.

Rules: both work with the world to themselves, and report each thing they did in words. What does not carry our mark is
not looked at. gc makes the machine what the records say by taking away; restore, by adding.
"""

from __future__ import annotations

import os

from vethwork.engine.interfaces import remove_interface
from vethwork.engine.operation import stuck
from vethwork.errors import Incomplete, VethworkError
from vethwork.maintenance.repair import mend_endpoint, mend_network, mend_ruleset, ruleset_differs
from vethwork.model.plan import Plan
from vethwork.model.steps import LINK_GROUP, DeleteLink, UnpinNetns
from vethwork.plan.ruleset import TABLES
from vethwork.process.lifecycle import delete_files, discard, stray_files, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vethwork.engine.engine import Engine
    from vethwork.engine.operation import Execution
    from vethwork.kernel.table_owner import Owner
    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network
    from vethwork.model.steps import Step


def collect_garbage(engine: Engine) -> tuple[str, ...]:
    """Remove containers whose namespace is gone, links and pins that no record knows, and rules that no record means."""
    at_first = _strays(engine), ruleset_differs(engine)
    report = [f"container {name}: its process is gone and --rm was asked for" for name in sweep(engine)]
    report += [
        f"container {container.name}: its namespace {container.netns} is gone"
        for container in engine.containers()
        if not engine.lives(container) and discard(engine, container.name, dead=True)
    ]
    engine.remove_idle_networks()
    failed: list[VethworkError] = []
    with engine.execution().begin(exclusive=True) as execution:
        execution.check_owner()
        # What a rehearsal only said it would remove is still there, and off record: it is no stray.
        strays, differs = at_first if engine.rehearses else (_strays(engine), ruleset_differs(engine))
        if strays:
            try:
                execution.carry_out(lambda: Plan("collect network", "garbage", strays, forward=True))
            except Incomplete as incomplete:
                failed += incomplete.errors
        report += [f"{command}: no record knows it" for step in strays for command in step.describe()]
        for path in () if engine.rehearses else stray_files(engine):
            delete_files(path)
            report.append(f"{path}: belongs to no container")
        if differs:
            step = execution.ruleset_step()
            execution.carry_out(lambda: Plan("collect network", "rules", (step,), forward=True))
            report.append("ruleset: brought to what the records say")
        whys = stuck(engine.store)
        report += [
            f"{verb} {subject}: still stuck: {whys[number]}"
            for number, verb, subject in engine.store.intended()
            if number in whys
        ]
    if failed:
        raise Incomplete("collect garbage", failed)
    return tuple(report)


def collect_unlisted(engine: Engine, network: str, keep: frozenset[tuple[str, str]], owner: str) -> None:
    """Take off a network what ``owner`` put there, all but ``keep``: names of containers and of interfaces in them.

    Raises Incomplete with all that could not be taken off; the rest is.
    """
    failed: list[VethworkError] = []
    for endpoint in engine.store.endpoints_on(network):
        if (endpoint.container, endpoint.ifname) in keep:
            continue
        try:
            remove_interface(engine, endpoint.container, network, endpoint.ifname, owner)
        except VethworkError as error:
            failed.append(error)
    if failed:
        raise Incomplete(f"collect garbage of network {network}", failed)


def restore(engine: Engine) -> tuple[str, ...]:
    """Bring back the host's side of every network, the links of every container that lives, and the whole ruleset."""
    report: list[str] = []
    with engine.execution().begin(exclusive=True) as execution:
        execution.check_owner()
        report += mend_ruleset(engine, execution)
        for network in engine.networks():
            report += _tell(f"network {network.name}", mend_network, engine, execution, network)
        for endpoint in engine.store.endpoints():
            what = f"container {endpoint.container}: {endpoint.ifname} on {endpoint.network}"
            report += _tell(what, mend_endpoint, engine, execution, endpoint)
    return tuple(report)


def _tell(
    what: str,
    mend: Callable[[Engine, Execution, Any], tuple[str, ...]],
    engine: Engine,
    execution: Execution,
    subject: Network | Endpoint,
) -> tuple[str, ...]:
    """What was mended, or why it could not be."""
    try:
        return mend(engine, execution, subject)
    except VethworkError as error:
        return (f"{what}: could not be restored (does 'vethwork gc' find something in its way?): {error}",)


def own_ruleset(engine: Engine, owner: Owner) -> None:
    """Make the ruleset nobody's but this process's to change, and what the records say. What is as it should be stays.

    Where the kernel knows no owners, it is only made what the records say. Raises ConflictError if another process, or
    another engine, has the tables, and KernelRefused.
    """
    nft = engine.kernel.nft
    with engine.execution().begin(exclusive=True) as execution:
        execution.check_owner()
        owner.take(TABLES, lambda: engine.kernel.apply((execution.ruleset_step(),)))
        if not nft.is_whole(TABLES) or ruleset_differs(engine):
            engine.kernel.apply((execution.ruleset_step(),))


def _strays(engine: Engine) -> tuple[Step, ...]:
    return stray_links(engine) + _stray_pins(engine)


def stray_links(engine: Engine) -> tuple[Step, ...]:
    """The steps that delete the links that carry our mark and that no record knows."""
    known: set[str] = {network.device for network in engine.networks()}
    for endpoint in engine.store.endpoints():
        known |= {endpoint.host_ifname, endpoint.ifb}
    found = [link for link in engine.kernel.door("").links() if link.group == LINK_GROUP]
    return tuple([DeleteLink("", link.ifname) for link in found if link.ifname not in known])


def _stray_pins(engine: Engine) -> tuple[Step, ...]:
    directory = f"{engine.run}/netns"
    if not os.path.isdir(directory):
        return ()
    known = {container.netns for container in engine.containers()}
    paths = [f"{directory}/{name}" for name in sorted(os.listdir(directory))]
    return tuple([UnpinNetns(path) for path in paths if path not in known])
