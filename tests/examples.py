"""How many examples the properties are tried with that take seconds."""

from hypothesis import settings


def thorough(count: int) -> int:
    """`count` in `make test-long`, a third of it for a change (`steady`), ten times as many for `explore`."""
    profile = settings.get_current_profile_name()
    return {"thorough": count, "explore": 10 * count}.get(profile, -(-count // 3))
