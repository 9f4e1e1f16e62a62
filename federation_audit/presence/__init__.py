"""Presence: whether a post is still there at its origin, and when it went."""
