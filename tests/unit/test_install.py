"""``vethwork install`` and ``uninstall``, staged below a directory: what is written, what is not, and that launchers start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.law.test_start_up import assert_cheap
from tests.unit.golden import assert_golden
from vethwork import __version__
from vethwork.frontends.cli.install import parse_directory, targets
from vethwork.frontends.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "cni": ("opt/cni/bin/vethwork", "etc/cni/net.d/10-vethwork.conflist"),
    "podman": ("usr/local/libexec/podman/netavark",),
    "docker": ("etc/systemd/system/vethwork.service",),
    "service": ("etc/systemd/system/vethwork.service",),
    "oci": ("usr/local/libexec/vethwork/oci-hook", "etc/containers/oci/hooks.d/vethwork.json"),
}
LAUNCHERS = {"cni": "cni", "podman": "netavark", "oci": "oci"}
TOOLS = sorted(FILES)


class Told(NamedTuple):
    """What the command line said."""

    status: int
    out: str
    err: str


class Stage:
    """A directory that plays the root of a machine."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys

    def call(self, *words: str) -> Told:
        """One command."""
        status = run([*words, "--root", str(self.root)])
        return Told(status, *self._capsys.readouterr())

    def good(self, *words: str) -> str:
        """One command that must succeed; gives what it said."""
        told = self.call(*words)
        assert (told.status, told.err) == (0, ""), told
        return told.out

    def refused(self, status: int, *words: str) -> str:
        """One command that must be refused; gives what it said."""
        told = self.call(*words)
        assert told.status == status, told
        assert told.out == ""
        assert "Traceback" not in told.err
        return told.err

    def tree(self) -> dict[str, str]:
        """Every file with its text, and every directory."""
        return {
            path.relative_to(self.root).as_posix(): path.read_text() if path.is_file() else "/"
            for path in self.root.rglob("*")
        }


@pytest.fixture
def stage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("VETHWORK_ROOT", "VETHWORK_RUN"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "root"
    root.mkdir()
    return Stage(root, capsys)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter and the package of some other machine."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(targets, "PACKAGE", "/usr/lib/python3/dist-packages")


def test_what_is_written(stage: Stage, elsewhere: None) -> None:
    said = []
    for tool in TOOLS:
        told = stage.good("install", tool).replace(str(stage.root), "")
        said.append(f"$ vethwork install {tool}\n{told}")
        for name in FILES[tool]:
            path = stage.root / name
            said.append(f"/{name} {path.stat().st_mode & 0o777:04o}:\n{path.read_text()}")
        stage.good("uninstall", tool)
    # How many directories were made depends on what was there, and the digest is not for people.
    assert_golden("install.txt", re.sub(r"directories \d", "directories N", "\n".join(said)))


@pytest.mark.parametrize("tool", TOOLS)
def test_twice_is_once(stage: Stage, tool: str) -> None:
    stage.good("install", tool)
    first = stage.tree()
    assert set(FILES[tool]) <= set(first)
    said = stage.good("install", tool)
    assert stage.tree() == first
    assert said.count("is in its place") == len(FILES[tool])


@pytest.mark.parametrize("tool", TOOLS)
def test_uninstall_takes_back_exactly_that(stage: Stage, tool: str) -> None:
    (stage.root / "etc").mkdir()
    before = stage.tree()
    stage.good("install", tool)
    stage.good("install", tool)
    said = stage.good("uninstall", tool)
    assert stage.tree() == before
    assert said.count("removed ") == len(FILES[tool])
    assert stage.good("uninstall", tool).count("is not there") == len(FILES[tool])


@pytest.mark.parametrize("tool", TOOLS)
def test_directories_that_others_use_stay(stage: Stage, tool: str) -> None:
    stage.good("install", tool)
    others = [(stage.root / name).parent / "somebody-else-s" for name in FILES[tool]]
    for path in others:
        path.write_text("x")
    stage.good("uninstall", tool)
    assert [path for path in stage.root.rglob("*") if path.is_file()] == sorted(others)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_rehearsal_changes_nothing(stage: Stage, tool: str, verb: str) -> None:
    if verb == "uninstall":
        stage.good("install", tool)
    before = stage.tree()
    said = stage.good(verb, tool, "--dry-run")
    assert stage.tree() == before
    assert all(f"/{name}" in said for name in FILES[tool])


@pytest.mark.parametrize("tool", TOOLS)
def test_a_rehearsal_is_a_script_that_does_the_same(stage: Stage, tool: str) -> None:
    script = stage.good("install", tool, "--dry-run")
    stage.good("install", tool)
    written = stage.tree()
    modes = [(stage.root / name).stat().st_mode for name in FILES[tool]]
    script_back = stage.good("uninstall", tool, "--dry-run")
    stage.good("uninstall", tool)
    for text, expected in ((script, written), (script_back, {})):
        done = subprocess.run(["/bin/sh", "-eu", "-c", text], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert {name: said for name, said in stage.tree().items() if said != "/"} == {
            name: said for name, said in expected.items() if said != "/"
        }
        if expected:
            assert [(stage.root / name).stat().st_mode for name in FILES[tool]] == modes


@pytest.mark.parametrize(("tool", "name"), [(tool, name) for tool in TOOLS for name in FILES[tool]])
@pytest.mark.parametrize("kind", ["file", "empty", "directory", "link", "dangling", "another-tool"])
def test_what_is_somebody_else_s_is_not_touched(stage: Stage, tool: str, name: str, kind: str) -> None:
    path = stage.root / name
    path.parent.mkdir(parents=True)
    other = stage.root / "other"
    match kind:
        case "file":
            path.write_text("theirs\n")
        case "empty":
            path.touch()
        case "directory":
            path.mkdir()
        case "link":
            other.write_text("theirs\n")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(other)
        case _:
            path.write_text(f"# written by 'vethwork install elsewhere' (sha256 {'0' * 32}, directories 0)\n")
    before = stage.tree()
    assert str(path) in stage.refused(4, "install", tool)
    assert str(path) in stage.refused(4, "install", tool, "--dry-run")
    assert stage.tree() == before
    assert f"{path}: is not ours, and stays" in stage.good("uninstall", tool)
    assert stage.tree() == before


@pytest.mark.parametrize("name", FILES["cni"])
def test_what_somebody_has_changed_stays(stage: Stage, name: str) -> None:
    stage.good("install", "cni")
    path = stage.root / name
    path.write_text(path.read_text().replace("10.77", "10.78") + "\n")
    changed = path.read_text()
    if name.endswith("conflist"):
        assert "stays as it is" in stage.good("install", "cni")
    else:
        assert "was changed since we wrote it" in stage.refused(4, "install", "cni")
    assert "was changed since we wrote it, and stays" in stage.good("uninstall", "cni")
    assert path.read_text() == changed
    assert [each for each in stage.root.rglob("*") if each.is_file()] == [path]


def test_what_an_older_version_wrote_is_renewed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage.tree()
    with monkeypatch.context() as patch:
        patch.setattr(targets, "PACKAGE", "/where/it/was")
        stage.good("install", "podman")
    assert "renewed" in stage.good("install", "podman")
    assert "/where/it/was" not in (stage.root / FILES["podman"][0]).read_text()
    stage.good("uninstall", "podman")
    assert stage.tree() == before


def test_a_mode_that_somebody_took_away_is_given_back(stage: Stage) -> None:
    stage.good("install", "oci")
    path = stage.root / FILES["oci"][0]
    path.chmod(0o600)
    stage.good("install", "oci")
    assert path.stat().st_mode & 0o777 == 0o755


def test_what_cannot_be_written_leaves_nothing(stage: Stage) -> None:
    """The second of two files has a file where its directory should be."""
    (stage.root / "etc").write_text("x")
    before = stage.tree()
    assert "etc" in stage.refused(5, "install", "cni")
    assert stage.tree() == before


def test_records_that_are_elsewhere(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "VETHWORK_ROOT" not in stage.good("install", "oci")
    monkeypatch.setenv("VETHWORK_ROOT", "/elsewhere")
    assert "VETHWORK_ROOT is set here" in stage.good("install", "oci")


def test_directories_can_be_chosen(stage: Stage) -> None:
    stage.good("install", "oci", "--dir", "/a//b/./c/", "--hooks-dir", "/d")
    assert json.loads((stage.root / "d/vethwork.json").read_text())["hook"]["path"] == "/a/b/c/oci-hook"
    stage.good("uninstall", "oci", "--dir", "/a/b/c", "--hooks-dir", "/d")
    assert stage.tree() == {}


def test_subnets_can_be_chosen(stage: Stage) -> None:
    stage.good("install", "cni", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64")
    said = json.loads((stage.root / FILES["cni"][1]).read_text())["plugins"][0]["ipam"]
    assert said["ranges"] == [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]
    assert [route["dst"] for route in said["routes"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("text", ["", ".", "etc", "../etc", "/a/../b", "/..", "/a\nb", "/a\0b", "~"])
def test_directories_that_are_none(stage: Stage, text: str) -> None:
    assert "not an absolute path" in stage.refused(2, "install", "podman", "--dir", text)
    assert stage.tree() == {}


def test_directories_are_spelled_in_one_way() -> None:
    assert [parse_directory(text) for text in ("/", "//", "/a//b/", "/./a/.")] == ["/", "/", "/a/b", "/a"]


@pytest.mark.parametrize("path", ["", "/opt/my python/bin/python3", f"/opt/{'x' * 127}/python3"])
def test_an_interpreter_that_a_script_cannot_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(sys, "executable", path)
    assert "cannot name the interpreter" in stage.refused(2, "install", "oci")
    assert stage.tree() == {}


@pytest.mark.parametrize("tool", sorted(LAUNCHERS))
def test_a_launcher_starts_bare_and_loads_little(stage: Stage, tool: str) -> None:
    stage.good("install", tool)
    path = stage.root / FILES[tool][0]
    arguments = [] if tool == "cni" else ["--version"]
    environment = {"CNI_COMMAND": "VERSION"} if tool == "cni" else {}
    done = subprocess.run(
        [path, *arguments], env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    assert ("1.1.0" if tool == "cni" else __version__) in done.stdout
    assert path.read_text().splitlines()[0] == f"#!{sys.executable} -IS"
    (function,) = re.findall(r"^from vethwork.launch import (\w+)$", path.read_text(), re.MULTILINE)
    assert function == LAUNCHERS[tool]
    assert_cheap(["vethwork.launch", f"vethwork.frontends.{function}.main"])


def test_the_unit_names_a_command_that_is_there(stage: Stage) -> None:
    stage.good("install", "docker")
    unit = (stage.root / FILES["docker"][0]).read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    done = subprocess.run(
        [*command.split(), "--help"], env={}, cwd="/", capture_output=True, text=True, check=True
    )
    assert "Docker" in done.stdout


def test_docker_and_everybody_share_one_service(stage: Stage) -> None:
    stage.good("install", "service")
    assert "is in its place" in stage.good("install", "docker")
    before = stage.tree()
    stage.good("uninstall", "docker")
    assert stage.tree().keys() < before.keys()
    assert "is not there" in stage.good("uninstall", "service")


def test_the_path_of_the_package_is_the_one_that_runs() -> None:
    assert os.path.samefile(f"{targets.PACKAGE}/vethwork/__init__.py", sys.modules["vethwork"].__file__ or "")
