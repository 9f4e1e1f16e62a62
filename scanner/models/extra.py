"""The packages that only CLIP models need: the extra `fediwarden[gpu]`."""

import importlib.util

from scanner.models.model import ModelError

PACKAGES = ("torch", "transformers")


class ExtraMissing(ModelError):
    """A package that the model needs is not installed."""


def check_extra(name: str) -> None:
    """Make sure that what runs the model `name` is installed; imports none of it. Raises `ExtraMissing`."""
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise ExtraMissing(
            f"model {name!r} needs {', '.join(missing)}, which the default installation leaves out; "
            "install the extra: pip install 'fediwarden[gpu]' (about 6 GB on Linux with an x86-64 processor)"
        )
