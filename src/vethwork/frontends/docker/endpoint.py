"""From CreateEndpoint and its fellows to the wish for one interface, and for its ports."""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.frontends.docker.document import Section, engine_id, parse_id
from vethwork.frontends.docker.network import OWNER, parse_host
from vethwork.frontends.json_document import parse_at
from vethwork.model.address import Address, Mac
from vethwork.model.container import AttachRequest, Join, Mode
from vethwork.model.ports import PROTOCOLS, Publish, merged
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.network import Network

PORT_MAP = "com.docker.network.portmap"


class Ports(Record):
    """The ports that are wanted. Of each of ``choices``, a range of host ports, any one is to lead to the container's."""

    named: tuple[Publish, ...]
    choices: tuple[Choice, ...]


class Choice(Record):
    """The first of several host ports, and the last."""

    first: Publish
    last: int

    def candidates(self) -> tuple[Publish, ...]:
        """Each of them."""
        numbers = range(self.first.host_port, self.last + 1)
        return tuple([self.first.replace(host_port=number) for number in numbers])


def parse_endpoint(document: Section, network: Network) -> AttachRequest:
    """The wish for an interface; who makes its link is told later. Raises RequestError."""
    endpoint_id, interface = parse_id(document, "EndpointID"), document.section("Interface")
    addresses = [interface.parsed(key, parse_host) for key in ("Address", "AddressIPv6")]
    join = Join(
        network=network.name,
        addresses=tuple([address for address in addresses if address is not None]),
        mac=interface.parsed("MacAddress", Mac.parse),
        requested=True,
    )
    return AttachRequest(
        id=engine_id(endpoint_id),
        name=endpoint_id,
        mode=Mode("network", network.name),
        joins=(join,),
        owner=OWNER,
        handed=True,
    )


def parse_ports(document: Section) -> Ports:
    """The ports of ``docker run -p``. Raises RequestError."""
    named: list[Publish] = []
    choices: list[Choice] = []
    for section in document.section("Options").sections(PORT_MAP):
        publish, last = _parse_port(section), section.number("HostPortEnd")
        if publish.host_port < last <= 65535:
            choices.append(Choice(publish, last))
        elif last not in (0, publish.host_port):
            raise RequestError(f"{section.place('HostPortEnd')}: {last} does not end a range of ports")
        elif publish not in named:
            named.append(publish)
    return Ports(merged(named), tuple(choices))


def _parse_port(section: Section) -> Publish:
    names = {number: name for name, number in PROTOCOLS.items()}
    protocol = section.number("Proto")
    if protocol not in names:
        raise RequestError(f"{section.place('Proto')}: {protocol} is none of {', '.join(map(str, names))}")
    ports = {key: section.number(key) for key in ("Port", "HostPort")}
    for key, port in ports.items():
        if not (0 if key == "HostPort" else 1) <= port <= 65535:
            raise RequestError(f"{section.place(key)}: {port} is not a port, 1 to 65535")
    host_ip = section.parsed("HostIP", Address.parse)

    def check(_: str) -> Publish:
        return Publish.check(names[protocol], host_ip, ports["HostPort"], ports["Port"])

    return parse_at(section.where, "", check)
