"""Cases and decisions in the formats of others: pure functions, one module a format; nothing is sent from here."""
