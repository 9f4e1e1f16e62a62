"""Packages that only some need: the extras of our distribution."""

import shlex
import sys


def install_command(extra: str) -> str:
    """What installs an extra beside the fediwarden that runs: by its own Python, as another's pip would look for a
    distribution of our name in the world."""
    return f"{shlex.quote(sys.executable)} -m pip install 'fediwarden[{extra}]'"
