"""``GET /metrics``: the service's numbers in the text format of Prometheus, as a WSGI application (PEP 3333).

What containers, networks, leases and ports there are is read from the records, what links and ports have carried from the
kernel, and both only when somebody asks. ``direction`` is the container's: what comes ``in`` to it, and what goes ``out`` of
it. A network's traffic is that of its bridge, and so what passes its gateway; what containers of one network say to each
other is seen at their endpoints.

Rules: read-only; nothing but GET and HEAD of /metrics. Who never asks does not pay for the library (5 MB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vethwork import __version__
from vethwork.maintenance.port_counters import port_tallies
from vethwork.service.counters import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from vethwork.engine.engine import Engine
    from vethwork.model.state import Carried
    from vethwork.service.counters import Counters
    from vethwork.service.engine_pool import Engines

PATH = "/metrics"
STATUSES = {200: "200 OK", 404: "404 Not Found", 405: "405 Method Not Allowed", 501: "501 Not Implemented"}


class Metrics:
    """Answers who scrapes."""

    def __init__(self, engines: Engines, counters: Counters) -> None:
        self._engines = engines
        self._counters = counters
        self._registry: CollectorRegistry | None = None

    def __call__(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        status, kind, body = 200, "text/plain; charset=utf-8", b""
        if request["PATH_INFO"] != PATH:
            status, body = 404, b"there is nothing but /metrics\n"
        elif request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body = 405, b"there is nothing but GET\n"
        else:
            try:
                kind, body = self._render()
            except ModuleNotFoundError as error:
                status, body = 501, f"{error}: pip install 'vethwork[serve]'\n".encode()
        start_response(STATUSES[status], [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _render(self) -> tuple[str, bytes]:
        from prometheus_client import CollectorRegistry, ProcessCollector, exposition

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(_Collector(self._engines, self._counters))
            ProcessCollector(registry=self._registry)
        return exposition.CONTENT_TYPE_LATEST, exposition.generate_latest(self._registry)


class _Collector:
    """What the library asks for at each scrape."""

    def __init__(self, engines: Engines, counters: Counters) -> None:
        self._engines = engines
        self._counters = counters

    def describe(self) -> tuple[Metric, ...]:
        """Nothing, so that the library does not collect once to find names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        yield from self._service()
        with self._engines() as engine:
            yield from _records(engine)
            yield from _traffic(engine, engine.kernel.door("").carried())
            yield from _ports(engine)

    def _service(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily

        yield InfoMetricFamily("vethwork", "The version that runs.", {"version": __version__})
        repairs = CounterMetricFamily(
            "vethwork_repairs", "What was put back after somebody had changed it.", labels=["kind"]
        )
        for kind, count in self._counters.repairs().items():
            repairs.add_metric([kind], count)
        yield repairs
        calls = HistogramMetricFamily(
            "vethwork_call_seconds",
            "How long runtimes' calls took; an attach is ADD, setup, attach or NetworkDriver.CreateEndpoint.",
            labels=["tool", "verb", "outcome"],
        )
        bounds = [*map(str, BOUNDS), "+Inf"]
        for key, (seconds, buckets) in self._counters.calls().items():
            calls.add_metric(list(key), list(zip(bounds, buckets, strict=True)), seconds)
        yield calls


def _records(engine: Engine) -> Iterator[Metric]:
    """What is on record."""
    from prometheus_client.core import GaugeMetricFamily

    store = engine.store
    yield GaugeMetricFamily("vethwork_containers", "Containers on record.", len(store.containers()))
    yield GaugeMetricFamily("vethwork_networks", "Networks on record.", len(store.networks()))
    text = "Changes on record that somebody is at work on, or died over."
    yield GaugeMetricFamily("vethwork_intents", text, len(store.intents()))
    held: dict[str, int] = {network.name: 0 for network in store.networks()}
    for endpoint in store.endpoints():
        held[endpoint.network] = held.get(endpoint.network, 0) + 1
    ports: dict[str, int] = {}
    for publication in store.publications():
        asked = publication.publish
        ports[asked.protocol] = ports.get(asked.protocol, 0) + asked.count
    for name, text, label, counts in (
        ("endpoints", "Interfaces of containers.", "network", held),
        ("leases", "Addresses that are held or promised.", "network", store.leases.counts()),
        ("published_ports", "Published ports, each of a range counted.", "protocol", ports),
    ):
        family = GaugeMetricFamily(f"vethwork_{name}", text, labels=[label])
        for key, count in counts.items():
            family.add_metric([key], count)
        yield family


def _traffic(engine: Engine, carried: dict[str, Carried]) -> Iterator[Metric]:
    """What the host's ends of networks and endpoints have carried: what they send is what comes in to containers."""
    networks = [((each.name,), each.device) for each in engine.networks() if each.driver == "bridge"]
    endpoints = [
        ((each.network, each.container, each.ifname), each.host_ifname) for each in engine.store.endpoints()
    ]
    yield from _counted("vethwork_network", "through a network's gateway", ("network",), networks, carried)
    labels = ("network", "container", "interface")
    yield from _counted("vethwork_endpoint", "of a container's interface", labels, endpoints, carried)


def _ports(engine: Engine) -> Iterator[Metric]:
    """What published ports have carried, in both directions as one."""
    from prometheus_client.core import CounterMetricFamily

    labels = ["container", "host_ip", "host_port", "protocol"]
    what = "forwarded to a published port and back, but for the host's own and for ranges that keep their numbers."
    packets = CounterMetricFamily("vethwork_port_packets", f"Packets {what}", labels=labels)
    octets = CounterMetricFamily("vethwork_port_bytes", f"Bytes {what}", labels=labels)
    for publication, tally in port_tallies(engine):
        asked = publication.publish
        span = f"{asked.host_port}-{asked.last}" if asked.count > 1 else str(asked.host_port)
        values = [publication.container, str(asked.host_ip or ""), span, asked.protocol]
        packets.add_metric(values, tally.packets)
        octets.add_metric(values, tally.bytes)
    yield packets
    yield octets


def _counted(
    name: str,
    what: str,
    labels: tuple[str, ...],
    links: Iterable[tuple[tuple[str, ...], str]],
    carried: dict[str, Carried],
) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    packets = CounterMetricFamily(f"{name}_packets", f"Packets {what}.", labels=[*labels, "direction"])
    octets = CounterMetricFamily(f"{name}_bytes", f"Bytes {what}.", labels=[*labels, "direction"])
    for values, ifname in links:
        seen = carried.get(ifname)
        if seen is not None:
            packets.add_metric([*values, "in"], seen.sent_packets)
            packets.add_metric([*values, "out"], seen.received_packets)
            octets.add_metric([*values, "in"], seen.sent_bytes)
            octets.add_metric([*values, "out"], seen.received_bytes)
    yield packets
    yield octets
