"""Viewing: pixels, where an admin allows them; one picture at a time, for a reason, and recorded."""
