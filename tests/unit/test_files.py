"""The files that a container sees in /etc, as text; and what is read from mountinfo about the host's /sys."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethwork.errors import RequestError
from vethwork.kernel import libc
from vethwork.model.address import Address
from vethwork.plan.etc_files import render_hosts, render_resolv
from vethwork.process.enter import parse_sysfs

LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def addresses(*texts: str) -> tuple[Address, ...]:
    """Read several addresses."""
    return tuple(Address.parse(text) for text in texts)


# hosts ---------------------------------------------------------------------------------------------------------------


def test_hosts_has_localhost_the_container_and_what_was_asked_for() -> None:
    extra = (("db", Address.parse("10.9.0.1")), ("db.example", Address.parse("fd09::1")))
    text = render_hosts("web", addresses("10.77.0.5", "fd00:77::5", "10.78.0.5"), extra)
    assert text == LOCALHOST + (
        "10.77.0.5\tweb\nfd00:77::5\tweb\n10.78.0.5\tweb\n10.9.0.1\tdb\nfd09::1\tdb.example\n"
    )


def test_a_name_with_a_domain_is_known_by_its_first_label_too() -> None:
    assert render_hosts("web.example.org", addresses("10.77.0.5"), ()).endswith(
        "\n10.77.0.5\tweb.example.org web\n"
    )


def test_an_address_that_is_given_twice_stands_once() -> None:
    assert render_hosts("web", addresses("10.77.0.5", "10.77.0.5"), ()).count("10.77.0.5") == 1


def test_a_container_without_an_address_finds_its_own_name() -> None:
    assert render_hosts("web", (), ()) == LOCALHOST + "127.0.0.1\tweb\n"


def test_without_a_name_there_is_only_localhost() -> None:
    assert render_hosts("", addresses("10.77.0.5"), ()) == LOCALHOST


@pytest.mark.parametrize(
    "name", ["", "two words", "line\nbreak", "tab\t", "#comment", "-dash", "a" * 254, "ü"]
)
def test_a_name_that_would_break_the_file_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="cannot stand in a hosts file"):
        render_hosts("web", (), ((name, Address.parse("10.9.0.1")),))
    if name:
        with pytest.raises(RequestError, match="cannot stand in a hosts file"):
            render_hosts(name, (), ())


# resolv.conf ---------------------------------------------------------------------------------------------------------

STUB = "# made by a resolver\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n"
UPSTREAM = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch up.example\n"


def test_the_hosts_nameservers_search_and_options_are_kept() -> None:
    host = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2\n"
    assert render_resolv(host, None, ()) == host


def test_what_was_asked_for_replaces_the_hosts_nameservers() -> None:
    text = render_resolv(
        "nameserver 192.0.2.53\nsearch a.example\noptions rotate\n", None, addresses("9.9.9.9", "::1")
    )
    assert text == "nameserver 9.9.9.9\nnameserver ::1\nsearch a.example\noptions rotate\n"


def test_a_stub_is_replaced_by_what_is_behind_it() -> None:
    assert render_resolv(STUB, UPSTREAM, ()) == UPSTREAM


def test_what_is_behind_the_stub_does_not_matter_if_nameservers_were_asked_for() -> None:
    assert render_resolv(STUB, UPSTREAM, addresses("9.9.9.9")) == (
        "nameserver 9.9.9.9\nsearch corp.example\noptions edns0 trust-ad\n"
    )


def test_what_is_behind_the_stub_does_not_matter_if_the_host_has_others() -> None:
    assert render_resolv("nameserver 127.0.0.1\nnameserver 192.0.2.9\n", UPSTREAM, ()) == (
        "nameserver 192.0.2.9\n"
    )


@pytest.mark.parametrize("server", ["127.0.0.53", "127.1.2.3", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("upstream", [None, "", "nameserver 127.0.0.1\nsearch up.example\n"])
def test_where_only_loopback_is_left_a_comment_says_so(server: str, upstream: str | None) -> None:
    text = render_resolv(f"nameserver {server}\nsearch a.example\n", upstream, ())
    comment, *rest = text.splitlines()
    assert comment.startswith("# no nameserver: the host's all listen on its loopback")
    assert "--dns" in comment
    assert rest == ["search a.example"]


def test_where_the_host_has_none_a_comment_says_so() -> None:
    assert render_resolv("", None, ()) == (
        "# no nameserver: the host's are not in its resolv.conf; ask for one with --dns\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "nameserver",
        "nameserver fe80::1%eth0",
        "nameserver example.org",
        "nameserver 010.0.0.1",
        " nameserver 192.0.2.1",
        "#nameserver 192.0.2.1",
        ";nameserver 192.0.2.1",
        "NAMESERVER 192.0.2.1",
        "nameserverx 192.0.2.1",
        "sortlist 192.0.2.0",
        "search",
        "search a.example\x00",
        "search $(reboot)",
        f"search {'a' * 300}",
        "options",
        "options <script>",
        f"options {'a ' * 600}",
        "\x1b[31m",
    ],
)
def test_a_line_that_is_not_sane_is_left_out(line: str) -> None:
    kept = "nameserver 192.0.2.53\n"
    assert render_resolv(f"{line}\n{kept}", None, ()) == kept


def test_the_last_search_or_domain_counts_and_all_options_do() -> None:
    host = "domain one.example\nsearch two.example\noptions rotate\nnameserver 192.0.2.1 # ours\r\noptions ndots:1\n"
    assert render_resolv(host, None, ()) == (
        "nameserver 192.0.2.1\nsearch two.example\noptions rotate\noptions ndots:1\n"
    )


words = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    [
        "nameserver",
        "search",
        "options",
        "127.0.0.53",
        "192.0.2.1",
        "::1",
        "fd00::1",
        " ",
        "\t",
        "\n",
        "\r",
        "#",
        "%eth0",
    ]
)


@given(st.lists(words, max_size=40).map(" ".join), st.none() | st.lists(words, max_size=20).map(" ".join))
def test_whatever_the_host_has_the_container_reads_only_what_it_can_use(
    host: str, upstream: str | None
) -> None:
    text = render_resolv(host, upstream, ())
    assert text.isascii()
    assert text.endswith("\n")
    servers = [line for line in text.splitlines() if line.startswith("nameserver ")]
    assert bool(servers) != text.startswith("# no nameserver: ")
    for line in text.splitlines()[0 if servers else 1 :]:
        keyword, _, rest = line.partition(" ")
        assert keyword in ("nameserver", "search", "domain", "options")
        assert rest == " ".join(rest.split())
        if keyword == "nameserver":
            assert not ipaddress.ip_address(rest).is_loopback


# /sys ----------------------------------------------------------------------------------------------------------------

MOUNTED = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys {options} shared:7 master:2 - {kind} sysfs rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 23 0:30 / /sys/kernel/a\\040b rw - securityfs securityfs rw
34 27 0:31 / /system rw - tmpfs tmpfs rw
"""
FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


def test_what_lies_directly_below_sys_is_found() -> None:
    text = MOUNTED.format(options="rw,nosuid", kind="sysfs")
    assert parse_sysfs(text) == (FLAGS, ("/sys/fs/cgroup", "/sys/kernel/a b"))


def test_a_sysfs_that_is_read_only_stays_so() -> None:
    assert parse_sysfs(MOUNTED.format(options="ro,nosuid", kind="sysfs"))[0] == FLAGS | libc.MS_RDONLY


@pytest.mark.parametrize("text", ["", MOUNTED.format(options="rw", kind="tmpfs")])
def test_where_sys_is_no_sysfs_nothing_is_to_be_done(text: str) -> None:
    assert parse_sysfs(text)[0] is None


def test_what_a_later_mount_hides_is_not_kept() -> None:
    text = MOUNTED.format(options="rw", kind="sysfs") + (
        "40 23 0:40 / /sys rw - sysfs sysfs rw\n41 40 0:41 / /sys/fs/bpf rw - bpf bpf rw\n"
    )
    assert parse_sysfs(text) == (FLAGS, ("/sys/fs/bpf",))
