"""Comparing the records with the kernel, repairing what differs, and collecting what is left over."""
