"""What is lent: a host, its neighbours and an internet as private namespaces, for tests and for trying things out."""
