"""vethwork: container networking for Linux.

__version__ is the version of the distribution.
"""

__version__ = "0.1.0"
