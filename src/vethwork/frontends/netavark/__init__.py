"""The stand-in for Podman's ``netavark``."""
