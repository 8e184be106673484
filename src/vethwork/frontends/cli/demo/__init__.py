"""``vethwork demo``: what vethwork does, told in a small world of its own and proved by packets.

    story    the seven chapters: what is typed, what it did, what proves it
    scene    the lab they play in: the command line on its host, pings and fetches from everywhere
    teller   how it looks: in colours on a terminal, plain in a pipe
    picture  the world at the end, drawn from the records

Rules: nothing is acted. What stands behind a ``$`` is run as a program on the lab's host; a check mark is what packets
said. It needs Python and a kernel, and no other program. A signal ends it at the next full stop, so that it never leaves
anything behind.
"""

from __future__ import annotations

import click


@click.command()
def demo() -> int:
    """Show every feature once, in namespaces of its own; this machine's network is not touched."""
    # Most commands never need what this one does, and start faster without it.
    from vethwork.frontends.cli.demo.scene import play

    return play()
