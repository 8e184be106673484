"""The command that stays: ``vethwork serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vethwork.errors import RequestError
from vethwork.frontends.cli import options
from vethwork.model.address import Address

if TYPE_CHECKING:
    Endpoint = tuple[Address, int]

DOCKER_SOCKET = "/run/docker/plugins/vethwork.sock"
"""Where dockerd looks for a plugin named vethwork (docs.docker.com, "Docker Plugin API", discovery)."""


def parse_endpoint(text: str) -> Endpoint:
    """Read ``127.0.0.1:9273`` or ``[::1]:9273``. Raises RequestError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise RequestError(f"{text!r:.80}: is not ADDRESS:PORT", hint="as in 127.0.0.1:9273 or [::1]:9273")
    return Address.parse(host), int(port)


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
@click.option(
    "--metrics",
    "metrics_at",
    type=options.Parsed("metrics", parse_endpoint),
    metavar="ADDRESS:PORT",
    help="Show metrics to everybody on this machine too, at a loopback address.",
)
def serve(docker_socket: str, without_docker: bool, metrics_at: Endpoint | None) -> None:
    """Serve runtimes and the Docker network plugin, until SIGTERM. Start it before dockerd.

    Runtimes' calls are taken at $VETHWORK_RUN/service.sock; without the service each is a process that does its own work.
    Metrics for Prometheus are there too: curl --unix-socket /run/vethwork/service.sock http://x/metrics
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
        metrics_at,
        lambda sockets: print(f"listening at {' and '.join(sockets)}", flush=True),
    )
