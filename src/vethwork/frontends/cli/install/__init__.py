"""``vethwork install`` and ``vethwork uninstall``: a runtime is told of vethwork, and made to forget it.

    targets    what each runtime needs on disk, as texts
    files      putting it there, and taking exactly that back

Rules: nothing is started, stopped or configured beyond the files that are named; what is left to do is said.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from vethwork.errors import RequestError
from vethwork.frontends.cli import options
from vethwork.frontends.cli.install import files, targets
from vethwork.model.address import Prefix

if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.frontends.cli.install.targets import Target

    Command = Callable[..., None]


def parse_directory(text: str) -> str:
    """Read the path of a directory: absolute, without ``..``, and of printable characters. Raises RequestError."""
    if not text.startswith("/") or ".." in text.split("/") or not text.isprintable():
        raise RequestError(f"directory {text[:80]!r}: not an absolute path without '..'")
    return "/" + "/".join([part for part in text.split("/") if part not in ("", ".")])


DIRECTORY = options.Parsed("dir", parse_directory)


def _directory(flag: str, name: str, default: str, what: str) -> Callable[[Command], Command]:
    return click.option(
        flag, name, type=DIRECTORY, default=default, show_default=True, metavar="DIR", help=what
    )


def _root(command: Command) -> Command:
    return click.option(
        "--root", type=DIRECTORY, default="/", metavar="DIR", help="Stage below it instead of below /."
    )(command)


@click.group()
def install() -> None:
    """Put vethwork into its place for a container runtime."""


@click.group()
def uninstall() -> None:
    """Take back what 'vethwork install' has put somewhere."""


def _carry_out(target: Target, taking: bool, dry: bool) -> None:
    if not taking:
        targets.check_interpreter()
    for line in (files.take_back if taking else files.place)(target.files, dry):
        print(line)
    if not dry:
        print(target.afterwards if taking else target.then)
    for name in ("VETHWORK_ROOT", "VETHWORK_RUN"):
        if not taking and not dry and os.environ.get(name):
            print(f"{name} is set here: what runtimes start must have it in its environment too.")


def _prefix(root: str) -> str:
    return "" if root == "/" else root


def _add(name: str, make: Callable[..., Target], summary: str, *wishes: Callable[[Command], Command]) -> None:
    """Make the two commands of a runtime; ``wishes`` are the options that ``make`` takes."""
    for group, taking in ((install, False), (uninstall, True)):

        def command(dry: bool, root: str, taking: bool = taking, **chosen: Any) -> None:
            _carry_out(make(_prefix(root), **chosen), taking, dry)

        command.__doc__ = f"{'Take back' if taking else 'Install'} {summary}."
        decorated: Any = options.dry_run(_root(command))
        for wish in reversed(wishes):
            decorated = wish(decorated)
        group.add_command(click.command(name)(decorated))


_add(
    "cni",
    targets.cni,
    "the CNI plugin, for containerd, CRI-O, nerdctl and Podman's CNI backend",
    _directory("--bin-dir", "bin_dir", "/opt/cni/bin", "Where runtimes look for plugins."),
    _directory("--conf-dir", "conf_dir", "/etc/cni/net.d", "Where runtimes look for configurations."),
    click.option(
        "--subnet",
        "subnets",
        type=options.PREFIX,
        multiple=True,
        default=(Prefix.parse("10.77.0.0/22"),),
        metavar="CIDR",
        help="The pods' subnet; one of each IP version.  [default: 10.77.0.0/22]",
    ),
)
_add(
    "podman",
    targets.podman,
    "the stand-in for netavark",
    _directory("--dir", "directory", "/usr/local/libexec/podman", "Where Podman looks for helpers."),
)
for _name, _make, _summary in (
    ("service", targets.service, "a systemd unit for the resident service"),
    (
        "docker",
        targets.docker,
        "a systemd unit for the resident service, which Docker's network plugin needs",
    ),
):
    _add(
        _name,
        _make,
        _summary,
        _directory("--unit-dir", "unit_dir", "/etc/systemd/system", "Where systemd looks for units."),
    )
_add(
    "oci",
    targets.oci,
    "the hook for runc and crun",
    _directory("--dir", "directory", "/usr/local/libexec/vethwork", "Where the hook goes."),
    _directory(
        "--hooks-dir", "hooks_dir", "/etc/containers/oci/hooks.d", "Where Podman and CRI-O look for hooks."
    ),
)

INSTALL_COMMANDS = (install, uninstall)
