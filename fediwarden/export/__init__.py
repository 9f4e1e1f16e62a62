"""What topics hold as files, for analysis and for moving house, and back into topics."""
