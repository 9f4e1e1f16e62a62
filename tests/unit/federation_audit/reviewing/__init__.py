"""Reviewing: outcomes, the queue, answers, overrides."""
