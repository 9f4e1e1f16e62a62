"""The bytes of every message version, read for ever.

A golden file is never changed; a new version gets a new file. `python -m tests.contract.test_golden` writes the
files that are missing.
"""

from pathlib import Path

import pytest

from schemas.codec import decode, encode, schema_of
from schemas.messages import MESSAGES
from tests.unit.schemas.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.msgpack"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_bytes_are_read_as_the_message_they_were(path):
    name, _, version = path.stem.rpartition("-")
    message = decode(f"{name}/{version}", path.read_bytes())
    assert message == SAMPLES[path.stem]


def test_every_message_has_golden_bytes():
    assert {path.stem for path in FILES} == {schema_of(SAMPLES[name]).replace("/", "-") for name in SAMPLES}
    assert {(type(message).SCHEMA, type(message).VERSION) for message in SAMPLES.values()} == {
        (message.SCHEMA, message.VERSION) for message in MESSAGES
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_current_release_still_writes_the_golden_bytes(path):
    assert encode(SAMPLES[path.stem]) == path.read_bytes()


if __name__ == "__main__":
    for name, message in SAMPLES.items():
        target = GOLDEN / f"{name}.msgpack"
        if not target.exists():
            target.write_bytes(encode(message))
            print(target)
