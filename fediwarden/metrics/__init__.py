"""Metrics for Prometheus: the port of the processes that serve no HTTP, and the reference of all names."""
