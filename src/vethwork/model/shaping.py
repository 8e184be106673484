"""How fast an endpoint may send and receive, and the steps that see to it.

Theory. The kernel shapes what *leaves* a link (a token bucket, tc-tbf(8)). What a container receives leaves the host's end of
its veth pair. What it sends enters there, where nothing can be shaped: it is led over an intermediate functional block
(ifb), a link on which it leaves once more, before it goes on as if nothing had happened. All of it stands on the host,
where the container cannot reach it.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.record import Record
from vethwork.model.steps import LINK_GROUP, DeleteLink, Step

LATENCY_SECONDS = 0.025
"""How long a packet may wait in the bucket's queue at the full rate; what would wait longer is dropped."""
LARGEST = 0xFFFFFFFF


class Rate(Record):
    """A token bucket: ``bits`` in a second in the long run, ``burst`` bytes at once."""

    bits: int
    burst: int

    @classmethod
    def check(cls, doing: str, bits: int, burst_bits: int, mtu: int = 0) -> Rate | None:
        """Build one from two numbers from outside, both in bits; None if both are 0. Raises RequestError.

        A bucket that does not hold one packet lets none through.
        """
        if bits == 0 and burst_bits == 0:
            return None
        if not (8 <= bits < 1 << 63 and burst_bits >= 8):
            raise RequestError(f"{doing}: a rate needs its bits in a second and a burst, both positive")
        made = cls(bits, min(burst_bits // 8, LARGEST))
        made.fit(doing, mtu)
        return made

    def fit(self, doing: str, mtu: int) -> None:
        """Refuse a bucket that does not hold one packet of a link. Raises RequestError."""
        if self.burst < mtu + ETHERNET_HEADER:
            raise RequestError(
                f"{doing}: a burst of {self.burst} bytes does not hold one packet of {mtu + ETHERNET_HEADER}"
            )

    @property
    def limit(self) -> int:
        """The bytes that may wait, the bucket's own among them."""
        return min(int(self.bits / 8 * LATENCY_SECONDS) + self.burst, LARGEST)


ETHERNET_HEADER = 14


class Bandwidth(Record):
    """What a container may receive (``ingress``) and send (``egress``); None is as much as it can."""

    ingress: Rate | None
    egress: Rate | None


class CreateIfb(Step):
    """Make a link that what enters another one can be led over, and bring it up."""

    ifname: str
    mtu: int

    def describe(self) -> tuple[str, ...]:
        make = f"ip link add {self.ifname} mtu {self.mtu} group {LINK_GROUP} type ifb"
        return (make, f"ip link set {self.ifname} up")

    def undo(self) -> tuple[Step, ...]:
        return (DeleteLink("", self.ifname),)


class DivertIngress(Step):
    """Lead what enters a link of the host over an ifb. It goes with the link."""

    ifname: str
    ifb: str

    def describe(self) -> tuple[str, ...]:
        match = "protocol all prio 1 u32 match u32 0 0"
        return (
            f"tc qdisc add dev {self.ifname} handle ffff: ingress",
            f"tc filter add dev {self.ifname} parent ffff: {match} action mirred egress redirect dev {self.ifb}",
        )


class ShapeLink(Step):
    """Let no more leave by a link of the host than a token bucket gives. It goes with the link."""

    ifname: str
    rate: Rate

    def describe(self) -> tuple[str, ...]:
        bucket = f"rate {self.rate.bits}bit burst {self.rate.burst}b limit {self.rate.limit}b"
        return (f"tc qdisc add dev {self.ifname} root handle 1: tbf {bucket}",)
