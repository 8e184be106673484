"""The command that stays: ``vethwork serve``."""

from __future__ import annotations

import click

from vethwork.errors import RequestError

DOCKER_SOCKET = "/run/docker/plugins/vethwork.sock"
"""Where dockerd looks for a plugin named vethwork (docs.docker.com, "Docker Plugin API", discovery)."""


@click.command()
@click.option(
    "--docker",
    "docker_socket",
    metavar="PATH",
    default=DOCKER_SOCKET,
    show_default=True,
    help="The socket of the Docker network plugin; the driver is named after the file.",
)
@click.option("--no-docker", "without_docker", is_flag=True, help="Serve no Docker network plugin.")
def serve(docker_socket: str, without_docker: bool) -> None:
    """Serve runtimes and the Docker network plugin, until SIGTERM. Start it before dockerd.

    Runtimes' calls are taken at $VETHWORK_RUN/service.sock; without the service each is a process that does its own work.
    """
    try:
        from vethwork.service import main
    except ModuleNotFoundError as error:
        if error.name != "waitress":
            raise
        raise RequestError(
            "serve: waitress is not installed", hint="pip install 'vethwork[serve]'"
        ) from error
    main.serve(
        "" if without_docker else docker_socket,
        lambda sockets: print(f"listening at {' and '.join(sockets)}", flush=True),
    )
