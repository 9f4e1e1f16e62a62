"""From a file's path, or the name of a policy that comes with fediwarden, to a checked policy."""

import importlib.resources
from collections.abc import Collection, Iterator
from pathlib import Path

from scanner.policy.errors import PolicyError
from scanner.policy.judging import Policy
from scanner.policy.parsing import parse_policy

DEFAULT = "default-cpu"


def shipped_policies() -> tuple[str, ...]:
    """The names of the policies that come with fediwarden."""
    return tuple(sorted(_names()))


def load_policy(given: Path | None, labels: Collection[str], embedders: Collection[str] = ()) -> Policy:
    """Read and check a policy: the file `given`, the shipped one of that name, or the default where it is None.

    `labels` and `embedders` as of `parse_policy`. Raises `PolicyError`.
    """
    text, source = read_policy(given)
    return parse_policy(text, labels, source=source, embedders=embedders)


def read_policy(given: Path | None) -> tuple[str, str]:
    """The text of a policy, `given` as to `load_policy`, and what errors call it. Raises `PolicyError`."""
    name = DEFAULT if given is None else str(given)
    if is_shipped(given):
        text = importlib.resources.files("scanner").joinpath(f"policies/{name}.toml").read_text(encoding="utf-8")
        return text, f"policies/{name}.toml"
    assert given is not None
    try:
        return given.read_text(encoding="utf-8"), str(given)
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(shipped_policies())
        what = f"the policy file cannot be read: {error}; scanner.policy names a file, or one of {shipped}"
        raise PolicyError(str(given), what) from error


def is_shipped(given: Path | None) -> bool:
    """Whether this is the name of a shipped policy (a file of that name is meant by ./name)."""
    return given is None or str(given) in _names()


def _names() -> Iterator[str]:
    for entry in importlib.resources.files("scanner").joinpath("policies").iterdir():
        if entry.name.endswith(".toml"):
            yield entry.name.removesuffix(".toml")
