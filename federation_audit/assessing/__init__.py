"""Assessing: from what the store and people know to what the statistics say, kept for a while."""
