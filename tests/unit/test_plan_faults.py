"""What is a fault of the host's side and what is not, and what puts it back."""

from __future__ import annotations

import pytest

from tests.unit.test_plan_networks import OTHER, endpoint, made, prefixes
from vethwork.errors import ConflictError
from vethwork.model.address import Interface, Mac, Prefix
from vethwork.model.container import Endpoint
from vethwork.model.names import Name
from vethwork.model.network import Network, NetworkRequest
from vethwork.model.shaping import Bandwidth, Rate
from vethwork.model.state import LinkSeen
from vethwork.model.steps import AddRoute, JoinBridge, SetLink, SetSysctl
from vethwork.plan.drift import endpoint_faults, network_faults, wanted_sysctls
from vethwork.plan.endpoint import bridge_mac

DUAL = made(NetworkRequest(Name("dual"), subnets=prefixes("10.6.0.0/24", "fd06::/64")))
ISOLATED = made(NetworkRequest(Name("alone"), subnets=prefixes("10.7.0.0/24"), isolated=True))
CABLE = made(NetworkRequest(Name("cable"), driver="p2p"))


def bridge(network: Network) -> LinkSeen:
    """A bridge with which all is well."""
    subnets = [each for each in network.subnets if each.gateway is not None]
    return LinkSeen(
        index=7,
        ours=True,
        up=True,
        mac=bridge_mac(network),
        mtu=network.mtu,
        master=0,
        hairpin=False,
        addresses=tuple(Interface(each.gateway, each.prefix.length) for each in subnets if each.gateway),
        routes=tuple(each.prefix for each in subnets),
    )


def sysctls(network: Network) -> dict[str, str | None]:
    """Sysctls with which all is well."""
    return {step.path: step.value for step in wanted_sysctls(network, ipv6=True)}


PORT = LinkSeen(8, ours=True, up=True, mac=Mac(2), mtu=1400, master=7, hairpin=True)


def words(network: Network, link: LinkSeen | None, *on: Endpoint, **values: str) -> list[str]:
    """What is wrong with a network whose host forwards."""
    found = {**sysctls(network), **{path.replace("__", "/"): value for path, value in values.items()}}
    return [each.words for each in network_faults(network, on, (4, 6), link, found)]


@pytest.mark.parametrize("network", [OTHER, DUAL, ISOLATED], ids=["v4", "dual", "isolated"])
def test_where_all_is_well_nothing_is_wrong(network: Network) -> None:
    assert words(network, bridge(network), endpoint(network, "vw0")) == []
    assert words(network, bridge(network).replace(mtu=9000), endpoint(network, "vw0")) == []
    more = bridge(network).replace(
        addresses=(*bridge(network).addresses, Interface(DUAL.subnets[0].prefix.last, 24))
    )
    assert words(network, more) == [], "what somebody added is his"


def test_what_is_not_ours_to_keep_has_no_faults() -> None:
    assert words(CABLE, None) == words(OTHER.replace(managed=False), None) == []
    assert wanted_sysctls(CABLE, ipv6=True) == wanted_sysctls(OTHER.replace(managed=False), ipv6=True) == ()
    away = endpoint(CABLE, "").replace(host_ifname="")
    assert endpoint_faults(away, CABLE, None, bridge(OTHER), ifb=False) == ()


def test_a_bridge_that_is_gone_is_one_fault() -> None:
    name = DUAL.device
    assert words(DUAL, None) == [f"bridge {name} was gone"]
    found = network_faults(DUAL, (), (4,), None, {})
    assert [each.words for each in found] == [f"bridge {name} was gone", "IPv6 forwarding was off"]


def test_each_fault_of_a_bridge_is_told_as_it_was() -> None:
    name, whole = DUAL.device, bridge(DUAL)
    assert words(DUAL, whole.replace(up=False)) == [f"bridge {name} was down"]
    assert words(DUAL, whole.replace(ours=False)) == [f"bridge {name} did not bear our mark"]
    assert words(DUAL, whole.replace(mac=Mac(5))) == [f"bridge {name} had the MAC address 00:00:00:00:00:05"]
    with pytest.raises(ConflictError, match="another bridge"):
        words(DUAL, whole.replace(ours=False, mac=Mac(5)))
    small = whole.replace(mtu=1000)
    assert words(DUAL, small) == [], "who nobody is on has the MTU that the kernel chose"
    assert words(DUAL, small, endpoint(DUAL, "vw0")) == [f"bridge {name} had an MTU of 1000"]
    assert words(DUAL, small, endpoint(DUAL, "vw0").replace(mtu=1000)) == [], "it follows its ports"
    assert words(DUAL, whole.replace(addresses=())) == [
        f"bridge {name} did not have the address {subnet.gateway}" for subnet in DUAL.subnets
    ]
    paths = (
        f"ipv4/conf/{name}/route_localnet",
        f"ipv6/conf/{name}/disable_ipv6",
        f"ipv6/conf/{name}/forwarding",
    )
    for path in paths:
        assert words(DUAL, whole, **{path: "x"}) == [f"sysctl net/{path} was x"]
    assert [step.path for step in wanted_sysctls(ISOLATED, ipv6=True)] == [
        f"ipv6/conf/{ISOLATED.device}/disable_ipv6"
    ]
    assert wanted_sysctls(ISOLATED, ipv6=False) == ()


def test_a_route_is_put_back_only_where_the_kernel_would_not() -> None:
    whole = bridge(DUAL)
    (fault,) = network_faults(DUAL, (), (4, 6), whole.replace(routes=whole.routes[1:]), sysctls(DUAL))
    assert fault.words == "route 10.6.0.0/24 was gone"
    assert fault.steps == (AddRoute("", DUAL.device, Prefix.parse("10.6.0.0/24"), None, instead=DUAL.device),)
    assert words(DUAL, whole.replace(up=False, routes=())) == [f"bridge {DUAL.device} was down"]


def test_what_puts_a_bridge_back() -> None:
    wrong = bridge(DUAL).replace(mac=Mac(5), mtu=1000)
    found = network_faults(DUAL, (endpoint(DUAL, "vw0"),), (4, 6), wrong, sysctls(DUAL))
    assert {step for each in found for step in each.steps} == {
        SetLink(DUAL.device, bridge_mac(DUAL), DUAL.mtu)
    }
    path = f"ipv6/conf/{DUAL.device}/accept_ra"
    (fault,) = network_faults(DUAL, (), (4, 6), bridge(DUAL), sysctls(DUAL) | {path: "2"})
    assert fault.steps == (SetSysctl("", path, "0"),)


def test_each_fault_of_a_link_is_told_as_it_was() -> None:
    it, host = endpoint(OTHER, "vw0"), bridge(OTHER)
    rejoin = (JoinBridge("vw0", OTHER.device, hairpin=True),)

    def faults(link: LinkSeen | None) -> list[tuple[str, object]]:
        return [(each.words, each.steps) for each in endpoint_faults(it, OTHER, link, host, ifb=True)]

    cut = "eth0 on other was cut off: link vw0"
    assert faults(PORT) == []
    assert faults(None) == [(f"{cut} was gone", ())]
    assert faults(PORT.replace(master=0)) == [(f"{cut} was not in its bridge", rejoin)]
    assert faults(PORT.replace(up=False)) == [(f"{cut} was down", rejoin)]
    assert faults(PORT.replace(hairpin=False)) == [("link vw0 was not in hairpin mode", rejoin)]
    reset = (SetLink("vw0", Mac(2), 1400),)
    assert faults(PORT.replace(mtu=1000)) == [("link vw0 had an MTU of 1000", reset)]
    assert faults(PORT.replace(ours=False)) == [("link vw0 did not bear our mark", reset)]
    with pytest.raises(ConflictError, match="another link vw0"):
        faults(PORT.replace(ours=False, master=0))
    assert endpoint_faults(it, OTHER, None, None, ifb=True) == (), "that is the network's fault"


def test_a_link_without_its_ifb_is_laid_anew() -> None:
    slow = endpoint(OTHER, "vw0").replace(bandwidth=Bandwidth(None, Rate(8_000_000, 20_000)))
    (fault,) = endpoint_faults(slow, OTHER, PORT, bridge(OTHER), ifb=False)
    assert fault.words == "link vb000000000000, which limits what eth0 sends, was gone"
    assert fault.steps == ()
    assert endpoint_faults(slow, OTHER, PORT, bridge(OTHER), ifb=True) == ()
