"""The Docker network plugin: libnetwork's remote driver and IPAM protocols, as translations (moby)."""
