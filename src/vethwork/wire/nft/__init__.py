"""nfnetlink messages of nf_tables: tables, chains, rules, sets and elements as bytes."""
