#!/usr/bin/env python3
"""Row 4: the outside world by SNAT. An internet that has no way back to a container sees the host's address.

Run as root: .venv/bin/python examples/4-internet.py
"""

import json

import vethwork
from vethwork.testing.lab import Lab

with Lab() as lab:  # a host, its neighbour, a router and an internet, as private namespaces
    lab.internet.serve_http(80)  # answers with whom it saw
    url = f"http://{lab.internet.v4}/"

    def on_the_host() -> None:
        with vethwork.Sandbox() as box:  # on the network that is there when nothing is said
            said = box.run(["curl", "-s", url], capture_output=True, check=True).stdout
            print(f"container {box.addresses[0]} was seen as {json.loads(said)['peer']}")

    lab.host.call(on_the_host)
    print(f"the host is {lab.host.v4}")
