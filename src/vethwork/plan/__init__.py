"""What is decided: pure functions from a request and a snapshot to a plan."""
