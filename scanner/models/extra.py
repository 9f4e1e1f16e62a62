"""The packages that only CLIP models need: the extra `fediwarden[gpu]`."""

import importlib.util

from scanner.models.model import ModelError
from schemas.extras import install_command

PACKAGES = ("torch", "transformers")


class ExtraMissing(ModelError):
    """A package that the model needs is not installed."""


def check_extra(name: str) -> None:
    """Make sure that what runs the model `name` is installed; imports none of it. Raises `ExtraMissing`."""
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise ExtraMissing(
            f"model {name!r} needs {', '.join(missing)}, which the default installation leaves out; "
            f"install the extra: `make gpu`, or {install_command('gpu')} (about 6 GB on Linux with an x86-64 processor)"
        )
