"""Origins from Lemmy's database: who posted an image, where, as Lemmy's own tables say, 0.19 and 1.0."""
