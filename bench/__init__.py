"""Load, pictures and scenarios that measure fediwarden; see docs/performance.md for the commands."""
