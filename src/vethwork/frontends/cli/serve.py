"""The command that stays: ``vethwork serve``."""

from __future__ import annotations

import click

from vethwork.errors import RequestError


@click.command()
@click.option(
    "--docker",
    "docker_socket",
    metavar="PATH",
    default="/run/docker/plugins/vethwork.sock",
    show_default=True,
    help="The socket of the Docker network plugin; the driver is named after the file.",
)
def serve(docker_socket: str) -> None:
    """Serve the Docker network plugin, until SIGTERM. Start it before dockerd."""
    try:
        from vethwork.service import main
    except ModuleNotFoundError as error:
        if error.name != "waitress":
            raise
        raise RequestError(
            "serve: waitress is not installed", hint="pip install 'vethwork[serve]'"
        ) from error
    main.serve(docker_socket, lambda: print(f"listening at {docker_socket}", flush=True))
