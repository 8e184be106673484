"""What each published port has carried, as the elements of the ruleset count it.

Rules: read-only. A publication has elements of its own, whatever else is published, and their sum is told. What has
none is left out: a range that is one element, and all ports where the rules were flushed.
"""

from __future__ import annotations

from errno import ENOENT

from vethwork.errors import KernelRefused
from vethwork.model.state import Tally
from vethwork.plan.elements import traffic_elements
from vethwork.plan.ruleset import INET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.model.container import Publication
    from vethwork.model.ruleset import Atom


def port_tallies(engine: Engine) -> tuple[tuple[Publication, Tally], ...]:
    """Every publication that is counted, with what it has carried in both directions. Raises KernelRefused."""
    counted = _counted(engine)
    ends = {endpoint.id: endpoint for endpoint in engine.store.endpoints()}
    found = []
    for publication in engine.store.publications():
        endpoint = ends.get(publication.endpoint)
        elements = traffic_elements(publication, endpoint) if endpoint is not None else ()
        own = [counted[each.set, each.key] for each in elements if (each.set, each.key) in counted]
        if own:
            total = Tally(sum([each.packets for each in own]), sum([each.bytes for each in own]))
            found.append((publication, total))
    return tuple(found)


def _counted(engine: Engine) -> dict[tuple[str, tuple[Atom, ...]], Tally]:
    nft = engine.kernel.nft
    names = [each.name for each in INET.sets if each.counter]
    try:
        return {(name, key): tally for name in names for key, tally in nft.tallies(INET, name).items()}
    except KernelRefused as error:
        if error.errno != ENOENT:
            raise
        return {}
