"""The command line: where arguments become requests, and results text.

Rules: this package decides nothing. Every value from outside goes through a ``parse`` of ``model`` before anything looks at
it. What people read goes through ``show``; ``--json`` prints one document and nothing else. Errors go to standard error
as *what we were doing: what happened*, then what to do; never a traceback, unless VETHWORK_DEBUG is set.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from errno import EDQUOT, EFBIG, EIO, ENOSPC

import click

from vethwork.errors import VethworkError
from vethwork.frontends.cli.containers import CONTAINER_COMMANDS
from vethwork.frontends.cli.install import INSTALL_COMMANDS
from vethwork.frontends.cli.networks import network
from vethwork.frontends.cli.serve import serve
from vethwork.frontends.cli.upkeep import UPKEEP_COMMANDS

NO_ROOM = (EIO, EFBIG, ENOSPC, EDQUOT)
INTERNAL_ERROR, CANNOT_WRITE = 70, 74  # EX_SOFTWARE and EX_IOERR of sysexits.h


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Container networking for Linux: namespaces, bridges, NAT and published ports.

    State is kept in $VETHWORK_ROOT (default /var/lib/vethwork), pinned namespaces in $VETHWORK_RUN (default
    /run/vethwork).
    """


for command in (*CONTAINER_COMMANDS, network, *UPKEEP_COMMANDS, *INSTALL_COMMANDS, serve):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the process with its exit status."""
    _open_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _open_streams() -> None:
    """Put /dev/null where a standard stream is closed: else the next file that is opened would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gives the lowest number that is free
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  # they are open as long as this process is
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


class _Ended(BaseException):
    """Somebody wants this process to end: what is half done is undone on the way out, as with Ctrl-C."""


def _end(number: int, _: object) -> None:
    raise _Ended(number)


def run(arguments: list[str]) -> int:
    """Run one command; gives its exit status."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        result = cli.main(arguments, prog_name="vethwork", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except _Ended as ended:
        return 128 + int(ended.args[0])
    except VethworkError as error:
        _tell(error.message, error.hint)
        return error.exit_status
    except BrokenPipeError:
        _give_up_output()
        return 141
    except Exception as error:  # the outermost boundary: a traceback is no answer to a user
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            _give_up_output()  # everything else that is written is written by the engine, which says where
            _tell(f"write to standard output: {error.strerror}", "what was done before stays done")
            return CANNOT_WRITE
        if "VETHWORK_DEBUG" in os.environ:
            traceback.print_exc()
        _tell(
            f"internal error: {type(error).__name__}: {error}",
            "set VETHWORK_DEBUG=1 to see where, and report it",
        )
        return INTERNAL_ERROR
    return result if isinstance(result, int) else 0


def _give_up_output() -> None:
    """Let what is still to be written go: else Python complains once more when it closes standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _tell(message: str, hint: str) -> None:
    print(f"vethwork: {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
