"""What one attach costs, in what can be counted: messages, system calls, statements, modules. A clock tells of the machine.

A budget that is exceeded is no bug yet; it asks what the new cost is for. One that has become too large is lowered.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import request
from vethwork.engine.engine import Engine
from vethwork.model.names import Name
from vethwork.model.network import NetworkRequest
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vethwork.testing.machine import Machine

BEGIN, END = "/attach-begins", "/attach-ends"

# Attaches to a network that has a container already, in a namespace that somebody else made, with one port: what a runtime
# asks for. The two look-ups tell strace's reader where it begins and ends.
PROGRAM = f"""if True:
    import os, sys
    sys.path[:0] = [{SOURCE!r}]
    from vethwork.engine.engine import Engine
    from vethwork.model.container import AttachRequest, Join, Mode
    from vethwork.model.names import Name, NetnsPath
    from vethwork.model.network import NetworkRequest
    from vethwork.model.ports import Publish

    def attach(engine, number, path):
        port = Publish.parse(f"{{8000 + number}}:80")
        mode, joins = Mode("network", "blue"), (Join(Name("blue")),)
        wish = AttachRequest(f"{{number:x}}" * 32, Name(f"c{{number}}"), mode, joins, (port,), NetnsPath(path))
        engine.attach(wish)

    with Engine() as engine:
        engine.create_network(NetworkRequest(Name("blue")))
        attach(engine, 1, sys.argv[1])
        os.path.exists({BEGIN!r})
        attach(engine, 2, sys.argv[2])
        os.path.exists({END!r})
"""


@pytest.fixture(scope="module")
def calls(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The system calls of one attach, as strace tells them."""
    path: Path = tmp_path_factory.mktemp("strace") / "calls"
    with Lab() as lab:
        netns = [lab.container(name).path for name in ("one", "two")]
        lab.host.run([tool("strace"), "-f", "-o", str(path), sys.executable, "-I", "-c", PROGRAM, *netns])
    # A sysctl is written again and again while another namespace's links are being deleted (rtnl_trylock, restart_syscall).
    lines = [line for line in path.read_text().splitlines() if "ERESTARTNOINTR" not in line]
    begins, ends = ([place for place, line in enumerate(lines) if mark in line] for mark in (BEGIN, END))
    return lines[begins[0] + 1 : ends[0]]


def test_netlink_messages(calls: list[str]) -> None:
    """The pair; its port; address, link, route and loopback in one datagram; do the tables stand; the batch with its edges.

    The batch has the port twice: where it leads, and what it carries.
    """
    sent = [
        len(re.findall(r"nlmsg_len=", line)) for line in calls if "sendto(" in line and "nlmsg_len=" in line
    ]
    assert sent == [1, 1, 4, 2, 7]


def test_system_calls(calls: list[str]) -> None:
    found = Counter(match[1] for line in calls if (match := re.match(r"\d+ +(\w+)\(", line)))
    assert found["setns"] == 2, "one trip into the namespace, and back"
    assert not found["clone3"] + found["clone"]
    assert found["sendto"] == 5
    assert found["recvfrom"] <= 7
    assert found["ioctl"] <= 11
    assert found["bind"] == 2, "the port of both IP versions"
    assert sum(found.values()) <= 110, found.most_common()


@pytest.fixture
def host() -> Iterator[Machine]:
    """The host of a lab."""
    with Lab() as lab:
        yield lab.host


def test_statements(host: Machine) -> None:
    def trace() -> list[str]:
        statements: list[str] = []
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("blue")))
            engine.attach(request("one", "8001:80", nets=("blue",)))
            engine.store._db.set_trace_callback(statements.append)
            engine.attach(request("two", "8002:80", nets=("blue",)))
        return statements

    found = Counter(statement.split()[0] for statement in host.call(trace))
    assert found["BEGIN"] == found["COMMIT"] == 2, "intend and settle"
    assert found["SELECT"] <= 7
    assert found["INSERT"] <= 6
    assert found["DELETE"] <= 1


# One operation in a process of its own, as for a runtime: what it loads, from a bare interpreter on.
ALONE = f"""if True:
    import sys
    sys.path[:0] = [{SOURCE!r}]
    from vethwork.engine.engine import Engine
    from vethwork.model.container import AttachRequest, Join, Mode
    from vethwork.model.names import Name, NetnsPath
    from vethwork.model.ports import Publish

    with Engine() as engine:
        if sys.argv[1] == "detach":
            assert engine.detach("one")
        else:
            name, port, path = Name(sys.argv[1]), Publish.parse(sys.argv[2]), NetnsPath(sys.argv[3])
            mode, joins = Mode("network", "bridge"), (Join(Name("bridge")),)
            engine.attach(AttachRequest(str(port.host_port) * 8, name, mode, joins, (port,), path))
    print(*sorted(sys.modules))
"""


def test_modules() -> None:
    """Once there is a network, and the ruleset, nothing is loaded of what makes either.

    Two modules of each count are the `__init__` of the packages `engine` and `wire.nft`: 0.1 ms each.
    """
    program = [sys.executable, "-I", "-S", "-c", ALONE]
    with Lab() as lab:
        zero, one = (lab.container(name).path for name in ("zero", "one"))
        calls = (("zero", "8000:80", zero), ("one", "8001:80", one), ("detach",))
        said = [lab.host.run([*program, *words]).stdout.split() for words in calls]
    for loaded, budget in zip(said[1:], (53, 52), strict=True):
        ours = [name for name in loaded if name.startswith("vethwork")]
        assert len(ours) <= budget, ours
        assert len(loaded) - len(ours) <= 42, sorted(set(loaded) - set(ours))
