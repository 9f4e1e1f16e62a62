"""Late verdicts: a rejected file that pict-rs keeps already is found by its hash and purged."""
