"""The command line of netavark: options of all subcommands first, then the subcommand and what belongs to it.

Source: netavark(1) and ``netavark --help`` of 1.4 to 2.1. Read by hand, for it is small and read for every container:
options are ``--name value`` or ``--name=value``, ``-x value``, ``-xvalue`` or ``-x=value``, and stand before the subcommand.
"""

from __future__ import annotations

from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = """\
Usage: vethwork-netavark [OPTIONS] COMMAND

vethwork in place of netavark, which Podman calls for the network of a container.

Commands:
  setup NETNS                                  give a container its network; JSON in, JSON out
  teardown NETNS                               take it away again
  update NETWORK --network-dns-servers LIST    other name servers for a network
  create                                       complete the description of a network; JSON in, JSON out
  firewall-reload                              bring the firewall rules back
  version                                      the version, as JSON

Options:
  -f, --file PATH              read the JSON document from a file instead of standard input
  -c, --config DIR             where Podman keeps what is lost at a reboot
  -r, --rootless BOOL          whether Podman runs without root
  -a, --aardvark-binary PATH   the name server
      --firewall-driver X, --plugin-directory DIR    accepted, and not used
  -h, --help, -V, --version
"""
COMMANDS = {
    "setup": 1,
    "teardown": 1,
    "update": 1,
    "create": 0,
    "version": 0,
    "firewall-reload": 0,
    "firewalld-reload": 0,
    "dhcp-proxy": 0,
    "help": 0,
}
"""The subcommands, with the number of their operands."""
SHORT = {"-f": "--file", "-c": "--config", "-r": "--rootless", "-a": "--aardvark-binary"}
OPTIONS = (*SHORT.values(), "--firewall-driver", "--plugin-directory")
AARDVARK = "/usr/libexec/podman/aardvark-dns"


class UsageError(Exception):
    """The command line is not one of netavark's; ends with exit status 2, as clap does."""


class Arguments(Record):
    """A command line. ``servers`` are those of ``update``; None if it names none."""

    command: str
    operand: str = ""
    file: str = ""
    config: str = ""
    rootless: bool = False
    aardvark: str = AARDVARK
    servers: str | None = None


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Read a command line, without the program's name. Raises UsageError."""
    options, rest = _split_options(words, OPTIONS)
    if not rest:
        raise UsageError("a subcommand is missing")
    command, *operands = rest
    if command in ("-h", "--help", "-V", "--version"):
        return Arguments(command.lstrip("-")[:1].lower())
    if command.startswith("-"):
        raise UsageError(f"unexpected argument {command!r:.80}")
    if command not in COMMANDS:
        raise UsageError(f"unrecognized subcommand {command!r:.80}")
    more: dict[str, str] = {}
    if command == "update":
        found, operands = _split_options(operands, ("--network-dns-servers",), everywhere=True)
        more = found
    elif command in ("dhcp-proxy", "help"):
        operands = []  # a daemon's own options; it is not here
    if len(operands) != COMMANDS[command]:
        raise UsageError(f"{command}: takes {COMMANDS[command]} operand(s), not {len(operands)}")
    return Arguments(
        command,
        operands[0] if operands else "",
        options.get("--file", ""),
        options.get("--config", ""),
        _parse_flag(options.get("--rootless", "false")),
        options.get("--aardvark-binary", AARDVARK),
        more.get("--network-dns-servers"),
    )


def _split_options(
    words: Sequence[str], known: Sequence[str], *, everywhere: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Take the known options off the front (or, ``everywhere``, out of the whole)."""
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") and word[:2] in SHORT and known is OPTIONS:
            name, value = word[:2], word[2:].removeprefix("=")
            equals = word[2:]
        name = SHORT.get(name, name) if known is OPTIONS else name
        if name in known:
            if not equals and not waiting:
                raise UsageError(f"a value is required for {name!r} but none was supplied")
            found[name] = value if equals else waiting.pop(0)
        elif everywhere:
            rest.append(word)
        else:
            return found, [word, *waiting]
    return found, rest


def _parse_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError(f"invalid value {text!r:.80} for '--rootless': it is true or false")
    return text == "true"


def parse_dns_port(environ: Mapping[str, str]) -> int:
    """The port that the name server listens on (NETAVARK_DNS_PORT); 0 for the usual one. Raises UsageError."""
    text = environ.get("NETAVARK_DNS_PORT") or "53"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f"NETAVARK_DNS_PORT={text!r:.80}: is not a port")
    return 0 if text == "53" else int(text)
