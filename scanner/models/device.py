"""How a device is named."""

from typing import Annotated

from pydantic import Field

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]
"""Where models run: ``auto`` (CUDA where it is, else the CPU), ``cpu``, ``cuda``, or one of several as ``cuda:1``."""
