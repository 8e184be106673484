"""What is said: immutable data. Requests, records, steps, rules, plans and results."""
