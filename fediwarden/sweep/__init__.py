"""Judging what a server stored before it had a fediwarden, and removing what is rejected when that is asked for."""
