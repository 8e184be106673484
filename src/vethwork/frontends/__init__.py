"""Who is spoken to: each front-end translates a foreign protocol to our requests and back, and decides nothing."""
