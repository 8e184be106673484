"""Processes in containers: entering namespaces, starting, supervising and stopping them."""
