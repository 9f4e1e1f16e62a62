"""Known-hash lists: what was found bad elsewhere, or here, is recognised by its hash before a scanner sees it."""
