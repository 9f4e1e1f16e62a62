"""Fetching what others name, guarded."""
