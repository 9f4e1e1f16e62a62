"""The relay: stands where Lemmy's pictrs.url points, changes nothing, and learns where images come from."""
