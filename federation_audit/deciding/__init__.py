"""Decisions: what people decide about instances, and what they note, send and hear of them."""
