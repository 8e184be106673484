"""What Podman hands over; an error is worded as netavark's are."""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.frontends.json_document import Section


class Fields(Section):
    """An object of Podman's."""

    whole = "standard input"
    largest = 64 << 20

    @classmethod
    def wrong(cls, message: str) -> RequestError:
        """As netavark says it."""
        return RequestError(f"failed to load network options: {message}")

    def named(self, key: str) -> tuple[tuple[str, Fields], ...]:
        """An object of objects; or, as netavark 2 takes it, an array of objects that hold their ``name``."""
        if isinstance(self.raw(key), list):
            return tuple([(each.text("name"), each) for each in self.sections(key)])
        inner = self.section(key)
        return tuple([(name, inner.section(name)) for name in inner.data()])

    def words(self, key: str) -> dict[str, str]:
        """An object of texts, without those that are empty."""
        return {name: value for name, value in self.pairs(key) if value}
