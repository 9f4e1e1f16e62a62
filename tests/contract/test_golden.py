"""The bytes of every message version, read for ever.

A golden file is never changed; a new version gets a new file, and so do new optional fields: ``<name>-1.1`` holds
version 1 as it is written since they came. `python -m tests.contract.test_golden` writes the
files that are missing.
"""

from pathlib import Path

import pytest

from schemas.codec import decode, encode, schema_of
from schemas.messages import MESSAGES
from tests.unit.schemas.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.msgpack"), key=lambda path: path.stem)


def _schema(stem: str) -> str:
    """``verdict-1.1`` is of schema ``verdict/1``."""
    name, _, version = stem.rpartition("-")
    return f"{name}/{version.partition('.')[0]}"


NEWEST = {_schema(path.stem): path.stem for path in FILES}.values()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_bytes_are_read_as_the_message_they_were(path):
    name, _, version = path.stem.rpartition("-")
    message = decode(f"{name}/{version}", path.read_bytes())
    assert message == SAMPLES[path.stem]


def test_every_message_has_golden_bytes():
    assert {path.stem for path in FILES} == set(SAMPLES)
    assert all(schema_of(message) == _schema(name) for name, message in SAMPLES.items())
    assert {(type(message).SCHEMA, type(message).VERSION) for message in SAMPLES.values()} == {
        (message.SCHEMA, message.VERSION) for message in MESSAGES
    }


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in NEWEST], ids=lambda path: path.stem)
def test_the_current_release_still_writes_the_golden_bytes(path):
    assert encode(SAMPLES[path.stem]) == path.read_bytes()


if __name__ == "__main__":
    for name, message in SAMPLES.items():
        target = GOLDEN / f"{name}.msgpack"
        if not target.exists():
            target.write_bytes(encode(message))
            print(target)
