"""Archived images in a topic of somebody's own, for a model that is not ours."""
