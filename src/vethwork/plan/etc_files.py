"""The files that a container sees in its /etc: hosts and resolv.conf, as text.

Rules: what comes from the host's file is read, judged and written anew, never copied; a line that is not understood is
left out. A nameserver on the host's loopback is left out too: in another network namespace nobody listens there.
See hosts(5) and resolv.conf(5).
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_DOMAIN = _LETTERS | frozenset("_.-")
_OPTION = _LETTERS | frozenset("_.-:")
_LONGEST_NAME = 253  # RFC 1035 2.3.4 allows 255 bytes on the wire, which is this much text
_LONGEST_LINE = 1024

_LOCALHOST = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def render_hosts(
    hostname: str, addresses: tuple[Address, ...], extra: tuple[tuple[str, Address], ...]
) -> str:
    """Write /etc/hosts: localhost, the container's own name at each of its addresses, then what was asked for.

    A name with a domain is known by its first label too. A container without an address finds its own name at
    127.0.0.1, for many programs give up if they cannot find it. Raises RequestError for a name that is none.
    """
    lines = list(_LOCALHOST)
    if hostname:
        _check_name(hostname)
        first, dot, _ = hostname.partition(".")
        names = f"{hostname} {first}" if dot and first else hostname
        own = tuple(dict.fromkeys(addresses)) or (Address(4, 0x7F000001),)
        lines += [f"{address}\t{names}" for address in own]
    for name, address in extra:
        _check_name(name)
        lines.append(f"{address}\t{name}")
    return "".join(f"{line}\n" for line in lines)


def _check_name(name: str) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or name[0] == "-" or not _DOMAIN.issuperset(name):
        raise RequestError(
            f"host name {name[:80]!r}: cannot stand in a hosts file",
            hint=f"letters, digits, '_', '.' and '-', at most {_LONGEST_NAME}",
        )


def render_resolv(host_text: str, upstream_text: str | None, dns: tuple[Address, ...]) -> str:
    """Write /etc/resolv.conf for a namespace of its own, from the host's.

    ``dns`` are the nameservers that were asked for; they replace the host's. If the host's are all on its loopback (a
    stub resolver such as systemd-resolved's), ``upstream_text`` is used in the host's place: the file that names the
    nameservers behind the stub, None if there is none. The search domains and options are kept.
    """
    searched, options, servers = _parse_resolv(host_text)
    usable = tuple(server for server in servers if not _is_local(server))
    if not dns and not usable and upstream_text is not None:
        up_searched, up_options, up_servers = _parse_resolv(upstream_text)
        usable = tuple(server for server in up_servers if not _is_local(server))
        if usable:
            searched, options, servers = up_searched, up_options, up_servers
    lines = [f"nameserver {server}" for server in dict.fromkeys(dns or usable)]
    if not lines:
        why = (
            "all listen on its loopback, out of reach from here" if servers else "are not in its resolv.conf"
        )
        lines.append(f"# no nameserver: the host's {why}; ask for one with --dns")
    lines += searched + options
    return "".join(f"{line}\n" for line in lines)


def _parse_resolv(text: str) -> tuple[list[str], list[str], list[Address]]:
    """Give the search line (the last one counts), the option lines, and the nameservers, of those that are sane."""
    searched: list[str] = []
    options: list[str] = []
    servers: list[Address] = []
    for line in text.split("\n"):
        # The resolver takes a keyword only where the line begins, so a comment needs no rule of its own.
        keyword, *words = line.split()[:64] if line[:1].isalpha() and len(line) <= _LONGEST_LINE else [""]
        if keyword == "nameserver" and words:
            try:
                servers.append(Address.parse(words[0]))
            except RequestError:  # one with a scope (fe80::1%eth0) too: that interface is not in there
                continue
        elif keyword in ("search", "domain") and _are_all(words, _DOMAIN, _LONGEST_NAME):
            searched = [f"{keyword} {' '.join(words)}"]
        elif keyword == "options" and _are_all(words, _OPTION, 64):
            options.append(f"options {' '.join(words)}")
    return searched, options, servers


def _are_all(words: list[str], letters: frozenset[str], longest: int) -> bool:
    return bool(words) and all(len(word) <= longest and letters.issuperset(word) for word in words)


def _is_local(address: Address) -> bool:
    """Whether the host meant itself: its loopback, also mapped into IPv6 (RFC 4291 2.5.5.2), or 0.0.0.0."""
    if address.version == 6 and address.value >> 32 == 0xFFFF:
        return _is_local(Address(4, address.value & 0xFFFFFFFF))
    return address.is_loopback or address.is_any
