"""The hooks that an OCI runtime runs: runc, crun, and what calls them."""
