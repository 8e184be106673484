#!/usr/bin/env python3
"""Row 5: a published port, from an outside machine, from the host, from the container itself; then closed again.

Run as root: .venv/bin/python examples/5-ports.py
"""

import vethwork
from vethwork.testing.lab import Lab

with Lab() as lab:

    def on_the_host() -> None:
        with vethwork.Sandbox(publish=["8080:80", "127.0.0.1:9000-9009:9000-9009/udp"], name="web") as box:
            web = lab.at(box.inspect().container.netns, "web")
            web.serve_http(80)  # answers with whom it saw
            web.serve_udp_echo(9005)
            print("neighbour:", lab.neighbour.connect(lab.host.v4, 8080))
            print("host:     ", lab.host.connect("127.0.0.1", 8080))
            print("hairpin:  ", web.connect(lab.host.v4, 8080))
            print("udp:      ", lab.host.connect("127.0.0.1", 9005, "udp"))
            box.unpublish("8080:80")
            print("closed:   ", lab.neighbour.reaches(lab.host.v4, 8080))

    lab.host.call(on_the_host)
