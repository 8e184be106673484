"""What the demo tells: the seven rows of what vethwork can do, each with its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vethwork.frontends.cli.demo.picture import draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.frontends.cli.demo.scene import Scene

SLEEP = "-- sleep infinity"
LIST_LINKS = ("--", "python3", "-c", "import socket; print(*dict(socket.if_nameindex()).values())")
SERVE = "-- python3 -m http.server"
MODES = (
    ("host", {"lo", "eth0", "vethwork0"}, "the host's own"),
    ("none", {"lo"}, "loopback, and nothing else"),
    ("bridge", {"lo", "eth0"}, "loopback, and its end of a veth"),
)
SOURCE = "192.0.2.77"


def tell_story(scene: Scene) -> None:
    """All of it, and the picture."""
    scene.tell.title("vethwork: container networking, told by seven things that it does")
    scene.tell.say(
        "There is a host, a neighbour on the same wire, and an internet behind a router: each a network namespace that "
        "exists only for this demo. The network of this machine is not touched. What follows a $ is typed on that "
        "host and really run; what follows a check mark was tried with packets."
    )
    for number, (title, tell) in enumerate(CHAPTERS, 1):
        scene.tell.heading(number, title)
        tell(scene)
    _draw(scene)


def _cable(scene: Scene) -> None:
    scene.tell.say(
        "A veth pair is a cable: what goes in at one end comes out at the other. Two containers hold one end each. There "
        "is no bridge, and the host is not part of it."
    )
    scene.type("network create cable --driver p2p")
    scene.type(f"run -d --name ada --net cable {SLEEP}")
    scene.tell.say(
        "What will it take to give bob the other end? Any command that changes something tells, if asked. (… is the "
        "directory where namespaces are pinned.)"
    )
    said = scene.type(f"run -d --name bob --net cable --dry-run {SLEEP}")
    pins = f"{scene.lab.directory}/host/run/netns"
    scene.tell.lines(line.replace(pins, "…") for line in said.splitlines() if not line.startswith("#"))
    scene.type(f"run -d --name bob --net cable {SLEEP}")
    scene.show_interfaces("ada", "bob")
    scene.pings("ada", "bob")
    scene.pings("bob", "ada")
    scene.refused(f"run -d --name eve --net cable {SLEEP}", "ada and bob hold them")


def _switch(scene: Scene) -> None:
    scene.tell.say(
        "A bridge is a switch made of software; any number of containers plug in. This one has no address on the host, "
        "so nothing leads out of it."
    )
    scene.type("network create club --isolated")
    for name in ("carol", "dave", "erin"):
        scene.type(f"run -d --name {name} --net club {SLEEP}")
    scene.show_interfaces("carol", "dave", "erin")
    scene.pings("carol", "dave")
    scene.pings("erin", "carol")
    scene.pings("dave", "host", reaches=False)
    scene.pings("dave", "internet", reaches=False)


def _gateway(scene: Scene) -> None:
    scene.tell.say(
        "Give the bridge an address, and it is the containers' gateway to the host. If nothing is said, the network is "
        "the one called bridge, made on first use in a subnet that is free. With --ipv6 a network has both."
    )
    scene.type(f"run -d --name frank {SLEEP}")
    scene.show_interfaces("frank")
    scene.type("network create blue --ipv6")
    scene.type(f"run -d --name gina --net blue {SERVE} --bind :: 80", at="gina")
    scene.await_server("gina")
    scene.show_interfaces("gina")
    gateway = scene.network("bridge")["subnets"][0]["gateway"]
    scene.pings("frank", "host", gateway)
    scene.pings("frank", "host")
    scene.pings("gina", "host", scene.address("host", 6))
    scene.tell.say("frank and gina are on two networks, and networks do not see each other:")
    scene.pings("frank", "gina", reaches=False)


def _outside(scene: Scene) -> None:
    frank = scene.address("frank")
    scene.tell.say(
        f"The internet has never heard of {frank}: what it answered would get lost. So what leaves takes on the host's "
        f"address (masquerade, the default), an address that the network was given, or none."
    )
    scene.machine("internet").serve_http(80)
    scene.machine("host").add_address(f"{SOURCE}/32")
    internet, internet6 = scene.address("internet"), scene.address("internet", 6)
    scene.show_elements("masquerade4", "masquerade6")
    scene.fetches("frank", internet, page="internet", saw=scene.lab.host.v4)
    scene.fetches("gina", internet6, page="internet", saw=scene.address("host", 6))
    scene.pings("internet", "frank", reaches=False)
    scene.type(f"network create fixed --masquerade {SOURCE}")
    scene.type(f"run -d --name hana --net fixed {SLEEP}")
    scene.show_elements("source4")
    scene.fetches("hana", internet, page="internet", saw=SOURCE)
    scene.type("network create plain --masquerade no")
    scene.type(f"run -d --name ivan --net plain {SLEEP}")
    scene.fetches("ivan", internet)


def _ports(scene: Scene) -> None:
    scene.tell.say(
        "A published port of the host leads to a port of a container. It is one entry in a map; the firewall's rules "
        "stay as they are, however many there are. The server sees who really asks; only where the answer would go "
        "astray, on the host's loopback and within the network itself, it sees the gateway."
    )
    scene.type(f"run -d --name web -p 8080:80 {SERVE} 80", at="web")
    scene.await_server("web")
    scene.show_interfaces("web")
    scene.show_elements("port4")
    host, web = scene.lab.host.v4, scene.address("web")
    gateway = scene.network("bridge")["subnets"][0]["gateway"]
    scene.fetches("neighbour", host, 8080, page="web", saw=scene.address("neighbour"))
    scene.fetches("internet", host, 8080, page="web", saw=scene.address("internet"))
    scene.fetches("host", "127.0.0.1", 8080, page="web", saw=gateway)
    scene.fetches("gina", host, 8080, page="web", saw=scene.address("gina"))
    scene.fetches("frank", host, 8080, page="web", saw=gateway)
    scene.fetches("web", host, 8080, page="web", saw=gateway)
    _more_ports(scene, host)
    scene.tell.say(
        "Closed until opened: the neighbour learns the way to the container, and that does not help it."
    )
    subnet = scene.network("bridge")["subnets"][0]["subnet"]
    scene.machine("neighbour").add_route(subnet, host)
    scene.fetches("neighbour", web)
    scene.fetches("neighbour", host, 9090)
    scene.refused(f"run -d --name mallory -p 8080:80 {SLEEP}", "container web")


def _more_ports(scene: Scene, host: str) -> None:
    scene.tell.say(
        "More ports, on containers that run: one for the host alone, a hundred at once, and one that IPv6 reaches too."
    )
    scene.type("publish web 127.0.0.1:9090:80 5000-5099:5000-5099/udp")
    scene.type("publish gina 8086:80")
    scene.show_elements("port_at4", "range4", "port6")
    scene.machine("web").serve_udp_echo(5042)
    scene.fetches("host", "127.0.0.1", 9090, page="web")
    seen = scene.machine("neighbour").connect(host, 5042, "udp")
    scene.proof(
        seen.name == "web",
        f"neighbour asks {host}, UDP port 5042",
        f"hello from {seen.name} (saw {seen.peer})",
    )
    neighbour6 = scene.address("neighbour", 6)
    scene.fetches("neighbour", scene.address("host", 6), 8086, page="gina", saw=neighbour6)


def _bridge_netfilter(scene: Scene) -> None:
    host = scene.machine("host")
    scene.tell.say(
        "Docker and Kubernetes turn on br_netfilter: what stays inside a bridge then meets the IP firewall too. That "
        "breaks many a setup. Here everything works in either position of the switch."
    )
    if host.sysctl("bridge/bridge-nf-call-iptables") is None:
        scene.tell.lines(
            ["This machine has not loaded br_netfilter, so there is no switch to turn; as things are:"]
        )
        _talk_inside(scene)
        return
    for value in ("0", "1"):
        host.filter_bridged(value == "1")
        scene.tell.lines([f"net.bridge.bridge-nf-call-iptables = {value}"])
        _talk_inside(scene)
    for line in scene.type("doctor").splitlines():
        if "br_netfilter, IPv4" in line:
            scene.tell.lines([line, "..."])


def _talk_inside(scene: Scene) -> None:
    gateway = scene.network("bridge")["subnets"][0]["gateway"]
    scene.pings("frank", "web")
    scene.fetches("web", scene.lab.host.v4, 8080, page="web", saw=gateway)


def _modes(scene: Scene) -> None:
    scene.tell.say("--net takes networks, or one of the modes that Docker made known. Who sees which links?")
    for mode, links, meaning in MODES:
        said = scene.type(("run", "--rm", "--net", mode, *LIST_LINKS))
        scene.tell.lines([said])
        seen = set(said.split())
        scene.proof(links <= seen and (mode == "host" or links == seen), f"--net {mode}", meaning)
    scene.tell.say("Or several networks at once:")
    scene.type(f"run -d --name judy --net blue --net club {SLEEP}")
    scene.show_interfaces("judy")
    scene.pings("judy", "gina")
    scene.pings("judy", "carol")
    _share(scene)


def _share(scene: Scene) -> None:
    scene.tell.say(
        "container:web shares web's namespace: same addresses, same ports. The namespace is pinned, so it is still there "
        "when web has stopped and started again."
    )
    scene.type(f"run -d --name sidecar --net container:web {SLEEP}")
    scene.fetches("sidecar", "127.0.0.1", page="web", saw="127.0.0.1")
    scene.type("stop web")
    scene.type("start web", at="web")
    scene.await_server("web")
    scene.fetches("sidecar", "127.0.0.1", page="web", saw="127.0.0.1")
    scene.fetches("neighbour", scene.lab.host.v4, 8080, page="web", saw=scene.address("neighbour"))
    scene.tell.say("And a namespace that something else made gets its network the same way.")
    stranger = scene.lab.container("stranger")
    scene.tell.lines([scene.type(("attach", "stranger", "--netns", stranger.path))])
    scene.pings("stranger", "frank")


def _draw(scene: Scene) -> None:
    world, lab = scene.world(), scene.lab
    scene.tell.title("What stands there now, as it is on record")
    scene.tell.line()
    for line in draw(world.networks, world.containers, lab.host.v4, lab.neighbour.v4, lab.internet.v4):
        scene.tell.line(f" {line}")


def tell_epilogue(scene: Scene, seconds: float) -> None:
    """The result. The lab is gone by then."""
    if scene.failures:
        scene.tell.title(f"{scene.failures} of {scene.proofs} proofs failed; see the crosses above.")
        scene.tell.say("What does 'vethwork doctor' say about this machine?")
        return
    scene.tell.title(
        f"All {scene.proofs} proofs held, in {seconds:.0f} seconds. Everything above is gone again."
    )
    scene.tell.say("Now on this machine:")
    scene.tell.command(f"vethwork run -d --name web -p 8080:80 {SERVE} 80".split())


CHAPTERS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("A cable between two containers", _cable),
    ("A bridge for many, and nothing beyond it", _switch),
    ("The bridge as gateway", _gateway),
    ("Out into the world", _outside),
    ("In from the world", _ports),
    ("With br_netfilter and without", _bridge_netfilter),
    ("The four modes", _modes),
)
