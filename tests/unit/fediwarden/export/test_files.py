"""Files that are there whole or not at all."""

import stat
from pathlib import Path

import pytest

from fediwarden.export.errors import FileTaken, FileUnusable
from fediwarden.export.files import new_file


def test_a_file_has_its_name_once_it_is_whole_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with new_file(path, force=False) as file:
        file.write(b"whole")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_of_one_that_fails_nothing_stays_and_the_old_one_does(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(error), new_file(path, force=True) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(FileTaken, match="--force"), new_file(path, force=False):
        pass
    with pytest.raises(FileTaken, match="--force"), new_file(tmp_path / "other", force=False):
        (tmp_path / "other").write_bytes(b"somebody else's")  # while we write
    assert (tmp_path / "other").read_bytes() == b"somebody else's"
    with new_file(path, force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileUnusable, match="nowhere"), new_file(tmp_path / "nowhere" / "x", force=False):
        pass
    with pytest.raises(FileTaken, match="folder"), new_file(tmp_path, force=True):
        pass
