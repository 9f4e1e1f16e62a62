"""`fediwarden demo`: an invented fediverse, whose images go through the real pipeline."""
