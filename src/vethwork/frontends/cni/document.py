"""A configuration: keys are compared without regard to case, as Go's decoder does it (containerd says ``HostPort``)."""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.frontends import json_document

# SPEC 1.1, section "Error": codes that a plugin may answer.
VERSION, UNSUPPORTED, UNKNOWN, ENVIRONMENT, DECODE, CONFIG, TRY_AGAIN, NOT_AVAILABLE = (
    1,
    2,
    3,
    4,
    6,
    7,
    11,
    50,
)


class CniError(RequestError):
    """An error with a code of the specification."""

    def __init__(self, code: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cni_code = code


class Section(json_document.Section):
    """An object of a configuration. A list of attachments of a full host has less than one million bytes."""

    whole = "the network configuration"
    largest = 16 << 20
    folded = True

    @classmethod
    def wrong(cls, message: str) -> CniError:
        """Error 6."""
        return CniError(DECODE, message)
