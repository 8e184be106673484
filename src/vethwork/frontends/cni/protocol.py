"""What a runtime says beside the document, and the shapes of what it hears (SPEC 1.1, sections 2 and 5).

    CNI_COMMAND      every verb
    CNI_CONTAINERID  ADD CHECK DEL
    CNI_IFNAME       ADD CHECK DEL
    CNI_NETNS        ADD CHECK      (DEL: it may be empty, or lead nowhere any more; it is not looked at)
    CNI_ARGS         may be there
    CNI_PATH         may be there; nothing is executed

Rules: what a variable holds is read by a ``parse`` of the model, and what is wrong with it is error 4. Keys of CNI_ARGS that
nobody here knows are let pass.
"""

from __future__ import annotations

from vethwork import __version__
from vethwork.errors import RequestError
from vethwork.frontends.cni.document import ENVIRONMENT, VERSION, CniError
from vethwork.frontends.json_document import parse_at
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from vethwork.errors import VethworkError
    from vethwork.frontends.cni.document import Section

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
ABOUT = f"CNI vethwork plugin v{__version__}\nCNI protocol versions supported: {', '.join(VERSIONS)}\n"

ON_AN_INTERFACE = ("ADD", "CHECK", "DEL")
SINCE = {"ADD": "0.1.0", "DEL": "0.1.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The verbs that work on a configuration, and the first version that has each."""

VARIABLES: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "CNI_CONTAINERID": (Name.parse, ON_AN_INTERFACE),
    "CNI_IFNAME": (IfName.parse, ON_AN_INTERFACE),
    "CNI_NETNS": (NetnsPath.parse, ("ADD", "CHECK")),
}


class Call(Record):
    """What was called, on what. Names are empty for a verb that needs none; ``arguments`` are those of CNI_ARGS."""

    command: str
    container: Name
    ifname: IfName
    netns: NetnsPath
    arguments: tuple[tuple[str, str], ...]

    def argument(self, key: str) -> str:
        """A value of CNI_ARGS; empty if it is missing."""
        return dict(self.arguments).get(key, "")


def parse_call(environ: Mapping[str, str]) -> Call:
    """Read the environment. Raises CniError (4), naming everything that is missing at once."""
    command = environ["CNI_COMMAND"]
    if command not in SINCE:
        raise CniError(ENVIRONMENT, f"CNI_COMMAND: {command!r:.40} is none of {', '.join(SINCE)}, VERSION")
    needed = [name for name, (_, verbs) in VARIABLES.items() if command in verbs]
    missing = [name for name in needed if not environ.get(name)]
    if missing:
        raise CniError(ENVIRONMENT, f"{command}: needs {', '.join(missing)} in the environment")
    try:
        values = {name: parse_at(name, environ[name], VARIABLES[name][0]) for name in needed}
    except RequestError as error:
        raise CniError(ENVIRONMENT, error.message, hint=error.hint) from error
    return Call(
        command,
        Name(values.get("CNI_CONTAINERID", "")),
        IfName(values.get("CNI_IFNAME", "")),
        NetnsPath(values.get("CNI_NETNS", "")),
        _parse_arguments(environ.get("CNI_ARGS", "")),
    )


def _parse_arguments(text: str) -> tuple[tuple[str, str], ...]:
    """``K=V;K2=V2``."""
    pairs = [pair.partition("=") for pair in text.split(";") if pair]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise CniError(ENVIRONMENT, f"CNI_ARGS: {key!r:.40} is not KEY=VALUE")
    return tuple([(key, value) for key, _, value in pairs])


def parse_version(document: Section) -> str:
    """The version that the caller speaks; one that says none is of the time before there were any. Raises CniError (1)."""
    version = document.text("cniVersion") or VERSIONS[0]
    if version not in VERSIONS:
        hint = f"this plugin speaks {', '.join(VERSIONS)}"
        raise CniError(VERSION, f"cniVersion {version!r:.40}: is not supported", hint=hint)
    return version


def check_since(command: str, version: str) -> None:
    """Refuse a verb that the caller's version does not have yet. Raises CniError (1)."""
    if VERSIONS.index(version) < VERSIONS.index(SINCE[command]):
        raise CniError(
            VERSION, f"{command}: needs a configuration of version {SINCE[command]}, not {version}"
        )


def versions() -> dict[str, Any]:
    """What VERSION answers."""
    return {"cniVersion": NEWEST, "supportedVersions": list(VERSIONS)}


def error_document(version: str, error: VethworkError) -> dict[str, Any]:
    """An error as the specification has it; the hint goes where details go."""
    said: dict[str, Any] = {"cniVersion": version, "code": error.cni_code, "msg": error.message}
    return said | ({"details": error.hint} if error.hint else {})
