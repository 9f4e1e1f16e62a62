"""Lists as people write them, and what is said of those that are none."""

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListError, ListInvalid, SourceFailed
from gateway.lists.files import as_csv, as_text, parse_list
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import WIDTH, HashKind
from gateway.lists.publishing import as_document
from gateway.lists.sources import fetch_hashes
from gateway.lists.store import StoredList

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


def parse(text: str | bytes, kind: HashKind | None = None, most: int = 1000) -> dict[str, list[str]]:
    data = text.encode() if isinstance(text, str) else text
    hashes = parse_list(data, "a.list", kind=kind, most=most).hashes
    return {each.value: hashes.hexadecimal(each) for each in HashKind if len(hashes.rows[each])}


@pytest.mark.parametrize(
    "text",
    [
        f"# made by hand\npdq {PDQ}\n\nsha256\t{SHA}  # why\n{MD5}\n",
        f"pdq {PDQ.upper()}\r\nsha256 {SHA}\r\nmd5 {MD5}\r\nsha1 0123 # passed over",
        f"type,hash\npdq,{PDQ}\nsha256,{SHA}\nvideo_md5,{MD5}\nphotodna,zzzz\n",
        f"\ufeffid;PDQ;SHA256;MD5\n1;{PDQ};;\n2;;{SHA};{MD5}\n",
        json.dumps([{"type": "pdq", "hash": PDQ}, {"sha256": SHA}, {"signal_type": "video_md5", "signal": MD5}, MD5]),
        json.dumps({"name": "x", "hashes": {"pdq": [PDQ], "sha256": [SHA], "md5": [MD5]}}),
        json.dumps({"pdq": [PDQ], "sha256": [SHA, SHA], "md5": [MD5]}),
    ],
    ids=["text", "text of threatexchange", "csv by type", "csv by column", "json objects", "export", "json by kind"],
)
def test_every_form_of_a_list_is_read_without_being_told_which_it_is(text: str) -> None:
    assert parse(text) == {"pdq": [PDQ], "sha256": [SHA], "md5": [MD5]}


def test_the_admin_says_what_hashes_of_64_digits_are_where_the_file_does_not() -> None:
    assert parse(f"{PDQ}\n{SHA}\n", HashKind.PDQ) == {"pdq": sorted([PDQ, SHA])}
    assert parse(f"hash\n{SHA}\n", HashKind.SHA256) == {"sha256": [SHA]}


@pytest.mark.parametrize(
    ("text", "line", "said", "remedy"),
    [
        ("", 0, "nothing in it", "one hash a line"),
        (f"{MD5}\n{SHA}\n", 2, "PDQ or sha256", "--kind pdq"),
        (f"pdq {PDQ}\npdq {MD5}\n", 2, "a pdq hash of 32 digits", "has 64"),
        (f"{MD5}\n{MD5[:-1]}g\n", 2, "is not hexadecimal", "0-9 and a-f"),
        (f"{MD5}\n{MD5[:-2]}\n", 2, "a hash of 30 digits", "md5 32"),
        (f"{MD5}\nnot a hash at all\n", 2, "is no hash", "one hash a line"),
        ("<!doctype html><title>Sign in</title>", 0, "HTML or XML", "login"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 0, "no text", "text, CSV or JSON"),
        (b"PK\x03\x04\x14\0\0\0", 0, "no text", "text, CSV or JSON"),
        (f"{MD5}\n".encode() + b"\xff\xfe", 2, "not UTF-8", "save the list as UTF-8"),
        ("name,url\na,b\n", 1, "no column of hashes among 'name', 'url'", "pdq, sha256, md5 or hash"),
        (f"hash,type\n{MD5},md5\n{MD5},md5,x,y\n", 3, "4 cells under 2 columns", "delimiter"),
        (f'["{MD5}",\n"{MD5}', 2, "no JSON", "cut off"),
        (f'["{MD5}", 7]', 0, "entry 2, '7', is no hash", "a string"),
        (f'[{{"id": 1}}, "{MD5}"]', 0, "entry 1", "a string"),
        ('{"message": "unauthorised"}', 0, "no hashes in this object", '"hashes"'),
        ("photodna abcd\nsha1 ef01\n", 0, "2 entries are of kinds that are not matched", "PDQ, sha256 and md5"),
        ("# nothing but\n# comments\n", 0, "no hash in it", "PDQ, sha256 and md5"),
    ],
)
def test_what_is_no_list_is_refused_as_a_whole_with_the_line_and_a_remedy(
    text: str | bytes, line: int, said: str, remedy: str
) -> None:
    with pytest.raises(ListInvalid) as refused:
        parse(text)
    assert refused.value.line == line
    assert said in str(refused.value) and remedy in str(refused.value)
    assert str(refused.value).startswith("a.list" + (f", line {line}: " if line else ": "))


def test_a_list_that_is_too_long_is_refused_where_it_becomes_so(tmp_path: Path) -> None:
    with pytest.raises(ListInvalid, match=r"line 4: more than 3 hashes; .*gateway\.lists\.max_hashes"):
        parse(f"{MD5}\n" * 5, most=3)
    long = tmp_path / "long.txt"
    with long.open("w") as file:  # ten million lines, in a file with a hole where most of them would be
        file.write(f"{MD5}\n" * 10)
        file.truncate(10_000_000 * 33)
    with pytest.raises(ListInvalid, match=r"larger than .*a list has at most 2000 hashes"):
        fetch_hashes(ListDefinition(name="long", source=str(long)), most=2000)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match=r"none\.txt cannot be read: No such file"):
        fetch_hashes(ListDefinition(name="none", source=str(tmp_path / "none.txt")), most=10)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_no_bytes_at_all_get_past_the_typed_errors(data: bytes) -> None:
    try:
        parsed = parse_list(data, "x", kind=None, most=10)
    except ListError:
        return
    assert len(parsed.hashes)


@given(
    st.fixed_dictionaries(
        {kind: st.lists(st.binary(min_size=width, max_size=width), max_size=5) for kind, width in WIDTH.items()}
    ).filter(lambda hashes: any(hashes.values()))
)
def test_what_is_exported_is_read_back_as_it_was(hashes: dict[HashKind, list[bytes]]) -> None:
    wanted = HashSet.of(hashes)
    stored = StoredList(ListDefinition(name="a", source="x"), wanted, "v", 0)
    for data in (
        "\n".join(as_text(wanted)).encode(),
        "\n".join(as_csv(wanted)).encode(),
        orjson.dumps(as_document(stored)),
    ):
        found = parse_list(data, "x", kind=None, most=100).hashes
        assert all(found.hexadecimal(kind) == wanted.hexadecimal(kind) for kind in HashKind)
