"""The lists command, from adding a list to removing it."""

import json
import os
import sys
from pathlib import Path

import pytest

from fediwarden import cli
from gateway.lists.store import ListStore, Suspension

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
NEAR = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b2f"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting from outside; the folder of the lists."""
    for name in list(os.environ):
        if name.upper().startswith("FEDIWARDEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIWARDEN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "lists"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    return Run(monkeypatch, capsys)


class Run:
    """Runs `fediwarden lists ...`: exit code, and what was said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["fediwarden", "lists", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self._capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, said.out + said.err


def test_a_list_is_added_shown_tested_refreshed_exported_and_removed(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "hashes.txt"
    source.write_text(f"pdq {PDQ}\n{MD5}\nphotodna 00\n")
    added = run("add", "bad", "hashes.txt", "--action", "review", "--responsible", "alice", "--expires", "2999-01-01")
    assert added[0] == 0
    assert "1 pdq, 1 md5; 1 entries of other kinds passed over" in added[1]
    (shown,) = json.loads(run("show", "--json")[1])
    assert (shown["state"], shown["action"], shown["counts"]) == ("matched", "review", {"pdq": 1, "md5": 1})
    assert (shown["source"], shown["responsible"]) == (str(source), "alice")  # found again from any directory
    assert shown["expires_at"].startswith("2998-12-31") or shown["expires_at"].startswith("2999-01-01")
    assert "alice" in run("show")[1]

    assert run("test", NEAR) == (0, "bad: pdq, 3 of 256 bits off; review, matched\n")
    assert json.loads(run("test", MD5, "--json")[1])[0]["kind"] == "md5"
    assert run("test", "0" * 64) == (1, "no list has it\n")
    assert run("test", NEAR, "--kind", "sha256")[0] == 1

    source.write_text(f"pdq {PDQ}\n")
    assert run("refresh")[0] == 0
    assert run("export", "bad", "--format", "csv") == (0, f"type,hash\npdq,{PDQ}\n")
    assert json.loads(run("export", "bad")[1])["hashes"]["pdq"] == [PDQ]
    assert run("remove", "bad", "--hash", PDQ)[0] == 0
    assert run("test", PDQ)[0] == 1
    assert run("remove", "bad")[0] == 0
    assert "There are no lists" in run("show")[1]


def test_a_list_of_the_same_name_is_replaced_only_when_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(MD5)
    assert run("add", "a", "a.txt")[0] == 0
    code, said = run("add", "a", "a.txt")
    assert code == 1 and "--replace" in said
    assert run("add", "a", "a.txt", "--replace")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a", "none.txt"), "none.txt cannot be read"),
        (("add", "A b", "a.txt"), "name: "),
        (("add", "a", "a.txt", "--expires", "soon"), "'soon' is no date"),
        (("add", "a", "a.txt", "--distance", "32"), "31"),
        (("add", "a", "a.txt", "--action", "shrug"), "shrug"),
        (("add", "a", "bad.txt"), "bad.txt, line 2"),
        (("add", "a", "http://127.0.0.1:9/x"), "http://127.0.0.1:9/x: "),
        (("add", "a", "http://127.0.0.1:9/x", "--token-env", "NO_SUCH_TOKEN"), "NO_SUCH_TOKEN"),
        (("add", "a", "exchange:nowhere"), "no exchange 'nowhere'"),
        (("test", "xyz"), "not hexadecimal"),
        (("test", "00"), "a hash of 2 digits"),
        (("remove", "none"), "no list 'none'"),
        (("export", "none"), "no list 'none'"),
        (("resume", "none"), "no list 'none'"),
        (("refresh", "none"), "no list 'none'"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_list(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.txt").write_text(MD5)
    (tmp_path / "bad.txt").write_text(f"{MD5}\nbad\n")
    code, output = run(*arguments)
    assert code != 0
    assert said in output and "Traceback" not in output
    assert "There are no lists" in run("show")[1]


def test_a_source_that_fails_leaves_the_list_as_it_was_and_the_others_are_refreshed(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(MD5)
        run("add", name, f"{name}.txt")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").write_text(f"pdq {PDQ}")
    code, said = run("refresh")
    assert code == 1 and "a.txt cannot be read" in said
    assert [row["counts"] for row in json.loads(run("show", "--json")[1])] == [{"md5": 1}, {"pdq": 1}]


def test_a_suspended_list_says_so_until_it_is_resumed(run: Run, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.txt").write_text(MD5)
    run("add", "a", "a.txt")
    ListStore(folder).suspend("a", Suspension(version="v", matched=7, images=100, at=0, by="gateway-1"))
    assert "suspended: it matched 7 of 100 images" in run("show")[1]
    assert "stays suspended" in run("refresh")[1]
    assert run("resume", "a") == (0, "a: matched again\n")
    assert run("resume", "a") == (0, "a: was not suspended\n")


def test_a_damaged_list_is_shown_beside_the_others(run: Run, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.txt").write_text(MD5)
    run("add", "a", "a.txt")
    (folder / "b.list").write_bytes(b"garbage")
    code, said = run("show")
    assert code == 0 and "damaged" in said and "1 md5" in said
