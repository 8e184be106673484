"""vethwork: container networking for Linux, in Python.

    with vethwork.Sandbox(publish=["8080:80"]) as box:      an isolated network for processes
        box.run(["python3", "-m", "http.server", "80"])

    with vethwork.Engine() as engine:                       the verbs: attach, detach, publish, create_network ...
        engine.create_network(vethwork.NetworkRequest(vethwork.Name("blue"), ipv6=True))

    with vethwork.testing.Lab() as lab:                     a host, its neighbour and its internet, for tests
        lab.neighbour.fetch(...)

The map of the source, in the order in which things depend on each other:

    errors       what goes wrong, and what to do about it
    model/       what is said      immutable data: requests, snapshots, steps, rules, plans, records
    plan/        decide            pure functions (request, snapshot) -> plan
    wire/        spell             bytes <-> data: netlink, rtnetlink, nfnetlink, nftables expressions, conntrack
    kernel/      touch             the only package that opens sockets, namespaces and /proc/sys, or starts processes
    store/       remember          SQLite, and locks that end with their holder
    observer     see               records and the kernel, as the snapshots that planners take
    home         whose             which namespace the records are about
    execution    carry out         intend, apply, settle; undo or finish what the dead left
    networks     the verbs on networks, and what an engine stands on
    engine       the verbs         observe -> plan -> execution
    handover     links that somebody else moves into place (Docker)
    interfaces   one interface at a time (CNI)
    check        whether what is on record is so
    pools        addresses for who asks before there is an endpoint (Docker's IPAM)
    reaper       a detach that need not wait for the kernel, and many that wait once
    runtime      processes         run, start, exec, stop, remove
    repair       mend              the ruleset, one network or one link, as it is on record
    upkeep       order             gc and restore
    guard        watch             hears what others change, and has it repaired; owns the ruleset
    tallies      count             what published ports have carried
    doctor       advice            what hinders or endangers, and what to do
    sandbox      the library face
    frontends/   speak             translations of foreign protocols, the command line among them
    service/     stay              the resident process: `vethwork serve`
    launch       hand over         a runtime's call: to the service, or to a front-end in this process
    testing/     lend              a host, its containers and its neighbours as private namespaces

Rules: importing this loads nothing; each public name loads what it needs when it is first used (PEP 562).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork import testing
    from vethwork.engine.engine import Engine
    from vethwork.engine.networks import new_id
    from vethwork.engine.reaper import detach_all
    from vethwork.errors import (
        ConflictError,
        Incomplete,
        KernelRefused,
        NotFound,
        RequestError,
        StateError,
        VethworkError,
    )
    from vethwork.model.address import Address, Interface, Mac, Prefix
    from vethwork.model.container import AttachRequest, Join, Mode
    from vethwork.model.names import IfName, Name, NetnsPath
    from vethwork.model.network import Network, NetworkRequest
    from vethwork.model.ports import Publish
    from vethwork.sandbox import Sandbox

__version__ = "0.1.0"

_HOMES = {
    "vethwork.engine.engine": ("Engine",),
    "vethwork.errors": (
        "ConflictError",
        "Incomplete",
        "KernelRefused",
        "NotFound",
        "RequestError",
        "StateError",
        "VethworkError",
    ),
    "vethwork.model.address": ("Address", "Interface", "Mac", "Prefix"),
    "vethwork.model.container": ("AttachRequest", "Join", "Mode"),
    "vethwork.model.names": ("IfName", "Name", "NetnsPath"),
    "vethwork.model.network": ("Network", "NetworkRequest"),
    "vethwork.model.ports": ("Publish",),
    "vethwork.engine.networks": ("new_id",),
    "vethwork.engine.reaper": ("detach_all",),
    "vethwork.sandbox": ("Sandbox",),
}

__all__ = [
    "Address",
    "AttachRequest",
    "ConflictError",
    "Engine",
    "IfName",
    "Incomplete",
    "Interface",
    "Join",
    "KernelRefused",
    "Mac",
    "Mode",
    "Name",
    "NetnsPath",
    "Network",
    "NetworkRequest",
    "NotFound",
    "Prefix",
    "Publish",
    "RequestError",
    "Sandbox",
    "StateError",
    "VethworkError",
    "__version__",
    "detach_all",
    "new_id",
    "testing",
]


def __getattr__(name: str) -> object:
    found = [home for home, names in _HOMES.items() if name in names]
    if not found and name != "testing":  # an import asks for submodules too, and goes on by itself
        raise AttributeError(f"module 'vethwork' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(found[0]), name) if found else import_module("vethwork.testing")
