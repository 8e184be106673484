"""The rules of a test session (tests/conftest.py) about skips, each tried in a session of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = (Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8")


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project under our conftest, and nobody watching."""
    monkeypatch.setenv("CI", "true")
    pytester.makeconftest(CONFTEST)
    return pytester


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_skip_for_a_missing_tool_fails_in_ci_only(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, status: int
) -> None:
    monkeypatch.setenv("CI", ci)
    session.makepyfile(test_it="def test_a(tool): tool('no-such-program')")
    done = session.runpytest_subprocess()
    assert done.ret == status
    done.stdout.fnmatch_lines(
        [
            "*1 skipped, 1 not for a kernel option*",
            "SKIPPED test_it.py::test_a: needs the tool no-such-program, which is not installed here",
        ]
    )


def test_a_skip_for_a_kernel_option_is_listed_and_passes(session: pytest.Pytester) -> None:
    session.makepyfile(
        test_it="import pytest\ndef test_a(): pytest.skip('needs a kernel built with CONFIG_NO_SUCH_THING')"
    )
    done = session.runpytest_subprocess()
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "*1 skipped, 0 not for a kernel option*",
            "SKIPPED test_it.py::test_a: needs a kernel built with CONFIG_NO_SUCH_THING",
        ]
    )


def test_a_file_that_is_skipped_whole_counts(session: pytest.Pytester) -> None:
    session.makepyfile(test_it="import pytest\npytest.skip('not today', allow_module_level=True)")
    done = session.runpytest_subprocess()
    assert done.ret == 1
    done.stdout.fnmatch_lines(["SKIPPED test_it.py: not today"])


def test_an_expected_failure_is_not_a_skip(session: pytest.Pytester) -> None:
    session.makepyfile(test_it="import pytest\n@pytest.mark.xfail\ndef test_a(): raise ValueError")
    assert session.runpytest_subprocess().ret == 0


def test_a_process_that_is_left_behind_fails_the_run_and_is_ended(session: pytest.Pytester) -> None:
    """One that has cut every tie to its parent but its mark."""
    session.makepyfile(
        test_it="""
        import subprocess
        def test_a():
            child = subprocess.Popen(["sleep", "4242"], start_new_session=True)
            child.returncode = 0  # so that Popen itself does not complain
        """
    )
    done = session.runpytest_subprocess()
    assert done.ret == 1
    done.stdout.fnmatch_lines(["LEFT BEHIND process: * sleep 4242"])
    assert not [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == b"sleep\x004242\x00"
    ]
