"""The commands that keep the machine in order: gc, restore, doctor, demo and version."""

from __future__ import annotations

import click

from vethwork import __version__
from vethwork.frontends.cli import options, show


@click.command()
@options.as_json
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        show.document({"version": __version__})
    else:
        print(f"vethwork {__version__}")


UPKEEP_COMMANDS = (version,)
