"""Text that people enter: kept as it was written, within a length, without what no database takes."""

from federation_audit.deciding.errors import NotDecided


def entered(text: str, name: str, *, most: int, field: str) -> str:
    """`text` without spaces around it. Raises `NotDecided` when it is empty, or longer than `most` characters."""
    kept = text.replace("\0", "").encode("utf-8", "replace").decode().strip()
    if not kept:
        raise NotDecided(f"Write {name}.", field)
    if len(kept) > most:
        raise NotDecided(f"{name.capitalize()} has at most {most:,} characters; this has {len(kept):,}.", field)
    return kept
