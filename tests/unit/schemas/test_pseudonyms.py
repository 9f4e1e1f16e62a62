"""Actors without names."""

import json
import multiprocessing
from pathlib import Path

import pytest

from schemas.pseudonyms import PSEUDONYM_BYTES, PseudonymKeysError, Pseudonyms

NOVEMBER_2026 = 1_795_000_000_000
YEAR_MS = 366 * 86_400_000
ALICE = "https://town.example/u/alice"


def test_an_actor_has_one_pseudonym_a_quarter_that_another_file_does_not_give(tmp_path: Path) -> None:
    ours, theirs = (Pseudonyms.open(tmp_path / name, at_ms=NOVEMBER_2026) for name in ("a.json", "b.json"))
    first = ours.pseudonym(ALICE, at_ms=NOVEMBER_2026)
    assert first is not None
    assert first.key_id == "2026Q4"
    assert len(first.value) == PSEUDONYM_BYTES
    assert first == Pseudonyms.open(tmp_path / "a.json", at_ms=NOVEMBER_2026).pseudonym(ALICE, at_ms=NOVEMBER_2026)
    assert first != ours.pseudonym("https://town.example/u/bob", at_ms=NOVEMBER_2026)
    assert first != theirs.pseudonym(ALICE, at_ms=NOVEMBER_2026)
    assert first in ours.every(ALICE)


def test_keys_are_made_a_year_ahead_and_go_when_nothing_made_with_them_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "actors.json"
    before = Pseudonyms.open(file, at_ms=NOVEMBER_2026)
    assert before.key_ids == ("2026Q4", "2027Q1", "2027Q2", "2027Q3", "2027Q4")
    later = Pseudonyms.open(file, at_ms=NOVEMBER_2026 + YEAR_MS)
    assert later.key_ids[0] == "2026Q4"
    assert later.pseudonym(ALICE, at_ms=NOVEMBER_2026) == before.pseudonym(ALICE, at_ms=NOVEMBER_2026)
    much_later = Pseudonyms.open(file, at_ms=NOVEMBER_2026 + 2 * YEAR_MS)
    assert "2026Q4" not in much_later.key_ids
    assert much_later.pseudonym(ALICE, at_ms=NOVEMBER_2026) is None


def _open(file: str) -> str:
    return Pseudonyms.open(Path(file), at_ms=NOVEMBER_2026).every(ALICE)[0].value.hex()


def test_processes_that_start_together_agree_on_the_keys(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert len(set(pool.map(_open, [str(tmp_path / "actors.json")] * 16))) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"2026Q4": "c2hvcnQ="}', "2026Q4"),
        ('{"2026Q5": "' + "A" * 43 + '="}', "2026Q5"),
        ('{"2026Q4": 7}', "damaged"),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "actors.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(PseudonymKeysError, match=why):
        Pseudonyms.open(file, at_ms=NOVEMBER_2026)
    assert file.read_text() == content


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "actors.json"
    Pseudonyms.open(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(PseudonymKeysError, match="chmod 600"):
        Pseudonyms.open(file)


def test_the_file_holds_nothing_but_keys(tmp_path: Path) -> None:
    file = tmp_path / "actors.json"
    Pseudonyms.open(file).pseudonym(ALICE)
    assert ALICE not in file.read_text()
    assert all(len(key) == 44 for key in json.loads(file.read_text()).values())
