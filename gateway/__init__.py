"""Everything that talks to pict-rs: the HTTP edge, frame extraction, and the answers."""
