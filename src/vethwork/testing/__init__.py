"""What is lent: a host, its neighbours and an internet as private namespaces, for tests and for trying things out."""

from vethwork.testing.lab import Lab
from vethwork.testing.machine import Machine

__all__ = ["Lab", "Machine"]
