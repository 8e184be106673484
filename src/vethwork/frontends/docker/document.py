"""What dockerd sends: where people write after ``-o``, everything is a text; and Docker's ids in ours."""

from __future__ import annotations

from hashlib import sha256

from vethwork.errors import RequestError
from vethwork.frontends import json_document
from vethwork.frontends.json_document import parse_at
from vethwork.model.names import Name

WORDS = {
    "true": True, "1": True, "t": True, "yes": True, "": True,
    "false": False, "0": False, "f": False, "no": False,
}  # fmt: skip


class Malformed(RequestError):
    """A request that is no document of the protocol."""


class Section(json_document.Section):
    """An object of a request. One with all 65535 ports published has 5 million bytes, and nobody sends that."""

    whole = "the request"

    @classmethod
    def wrong(cls, message: str) -> Malformed:
        """Status 400."""
        return Malformed(message)

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean, or a word that means one."""
        said = self.raw(key)
        if not isinstance(said, str):
            return super().flag(key, default)
        if said.lower() not in WORDS:
            raise self.wrong(f"{self.place(key)}: must be true or false")
        return WORDS[said.lower()]


def parse_id(document: Section, key: str) -> Name:
    """An id of Docker's, which is 64 hex digits; any name that can be an id is taken. Raises RequestError."""
    return parse_at(document.place(key), document.text(key), Name.parse)


def engine_id(docker_id: str) -> str:
    """The id of ours that stands for one of Docker's: its first 32 hex digits, so that people recognise it."""
    start = docker_id[:32]
    if len(start) == 32 and set(start) <= set("0123456789abcdef"):
        return start
    return sha256(docker_id.encode()).hexdigest()[:32]
