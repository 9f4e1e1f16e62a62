"""Models: what turns frames into scores, where their weights come from, and how they are checked."""
