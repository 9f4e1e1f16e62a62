"""How far the rescan at work is, for the pages and for Prometheus; what it said is in the store (`store.rescans`)."""
