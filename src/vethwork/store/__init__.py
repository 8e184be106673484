"""What is remembered: networks, containers, leases and intents, in one SQLite file."""
