"""Lists as people and programs write them: text, CSV or JSON, told apart by their content.

Text: one hash a line, alone or after its kind (``pdq 3f…``, as `threatexchange` writes files); ``#`` begins a comment.
CSV: a header that names the columns; one called ``pdq``, ``sha256`` or ``md5`` holds such hashes, one called ``hash``
(``signal``, ``indicator``, ``value``) those of the kind in the column ``type`` (``signal_type``, ``kind``), or of the
kind the admin named. JSON: an array of hashes, or of objects with the same names, or what `lists export` writes.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from gateway.lists.errors import ListInvalid
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import WIDTH, HashKind

_DIGITS = {width * 2 for width in WIDTH.values()}
_OF_ANY_KIND = ("hash", "signal", "indicator", "value", "signal_str")
_KIND_COLUMNS = ("type", "signal_type", "kind", "hash_type", "indicator_type")
_KIND_WORDS = {
    "pdq": HashKind.PDQ,
    "pdqhash": HashKind.PDQ,
    "hash_pdq": HashKind.PDQ,
    "sha256": HashKind.SHA256,
    "sha-256": HashKind.SHA256,
    "hash_sha256": HashKind.SHA256,
    "md5": HashKind.MD5,
    "video_md5": HashKind.MD5,
    "hash_md5": HashKind.MD5,
    "hash_video_md5": HashKind.MD5,
}
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Parsed:
    """The hashes of a file, and how many of its entries were of kinds that are not matched (PhotoDNA, sha1, URLs)."""

    hashes: HashSet
    passed_over: int


def parse_list(data: bytes, source: str, *, kind: HashKind | None, most: int) -> Parsed:
    """The hashes in a file's `data`; `kind` is what those of 64 digits are where the file does not say.

    Raises `ListInvalid`, which names the line: no text, no hashes, one that is none, more than `most`.
    """
    if not data.strip():
        raise ListInvalid(source, "there is nothing in it", remedy="a list has one hash a line, or is CSV or JSON")
    if b"\0" in data[:4096]:
        raise ListInvalid(source, "this is no text", remedy="give a text, CSV or JSON file of hashes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ListInvalid(source, "this is not UTF-8", line=line, remedy="save the list as UTF-8 text") from None
    begin = text.lstrip()[:1]
    if begin == "<":
        raise ListInvalid(source, "this is HTML or XML", remedy="does the address lead to a page, or to a login?")
    collected = _Collected(source, kind, most)
    if begin in "[{":
        _read_json(data, text, collected)
    else:
        lines = text.splitlines()
        first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
        if dialect := _dialect(first):
            _read_csv(lines, dialect, collected)
        else:
            _read_text(lines, collected)
    return collected.finish()


class _Collected:
    """Checks hash after hash."""

    def __init__(self, source: str, kind: HashKind | None, most: int) -> None:
        self.source = source
        self._kind = kind
        self._most = most
        self._packed = {kind: bytearray() for kind in HashKind}
        self._count = 0
        self._passed_over = 0

    def add(self, text: str, line: int, word: str = "") -> None:
        """One hash, as text, and the word for its kind ("" where there is none)."""
        named = _KIND_WORDS.get(word.strip().lower()) if word else None
        if word and named is None:
            self._passed_over += 1
            return
        digits = text.strip()
        try:
            digest = bytes.fromhex(digits)
        except ValueError:
            self.fail(f"{digits[:_SHOWN]!r} is not hexadecimal", line, "a hash has the digits 0-9 and a-f only")
        if len(digest) * 2 != len(digits):
            self.fail(f"{digits[:_SHOWN]!r} has spaces in it", line, "write a hash without spaces")
        kind = named or self._guess(digest, line)
        if len(digest) != WIDTH[kind]:
            wanted = WIDTH[kind] * 2
            self.fail(f"a {kind} hash of {len(digits)} digits", line, f"a {kind} hash has {wanted}")
        self._count += 1
        if self._count > self._most:
            self.fail(
                f"more than {self._most} hashes",
                line,
                "split the list, or raise gateway.lists.max_hashes (a gateway needs 130 bytes for each)",
            )
        self._packed[kind] += digest

    def _guess(self, digest: bytes, line: int) -> HashKind:
        if self._kind is not None:
            return self._kind
        if len(digest) == WIDTH[HashKind.MD5]:
            return HashKind.MD5
        if len(digest) != WIDTH[HashKind.PDQ]:
            kinds = ", ".join(f"{kind} {width * 2}" for kind, width in WIDTH.items())
            self.fail(f"a hash of {len(digest) * 2} digits", line, f"known are {kinds}")
        self.fail("a hash of 64 digits may be PDQ or sha256", line, "say which with --kind pdq or --kind sha256")

    def fail(self, what: str, line: int, remedy: str) -> NoReturn:
        """Refuse the whole list: half of one would pass for all of it."""
        raise ListInvalid(self.source, what, line=line, remedy=remedy)

    def finish(self) -> Parsed:
        """What was collected, if anything was."""
        if not self._count:
            over = f"; {self._passed_over} entries are of kinds that are not matched" if self._passed_over else ""
            raise ListInvalid(
                self.source, f"no hash in it{over}", remedy="PDQ, sha256 and md5 hashes in hexadecimal are matched"
            )
        return Parsed(HashSet.from_packed(self._packed), self._passed_over)


def _read_text(lines: Iterable[str], collected: _Collected) -> None:
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].split()
        if len(entry) == 1:
            collected.add(entry[0], number)
        elif len(entry) == 2 and not _is_digits(entry[0]):
            collected.add(entry[1], number, entry[0])
        elif entry:
            collected.fail(
                f"{line.strip()[:_SHOWN]!r} is no hash", number, "write one hash a line, after its kind if need be"
            )


def _is_digits(text: str) -> bool:
    return len(text) in _DIGITS and all(each in "0123456789abcdefABCDEF" for each in text)


def _dialect(first: str) -> str:
    """The delimiter when this line is a CSV header, else ""."""
    for delimiter in (",", ";", "\t"):
        if delimiter in first:
            return delimiter
    return "," if first.strip().lower() in (*_KIND_WORDS, *_OF_ANY_KIND) else ""


def _read_csv(lines: list[str], delimiter: str, collected: _Collected) -> None:
    rows = csv.reader(lines, delimiter=delimiter)
    header: list[str] | None = None
    columns: list[tuple[int, str]] = []
    kind_at: int | None = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
                continue
            if header is None:
                header = [cell.strip().lower() for cell in row]
                columns, kind_at = _columns(header, rows.line_num, collected)
                continue
            if len(row) > len(header):
                collected.fail(
                    f"{len(row)} cells under {len(header)} columns", rows.line_num, "is the delimiter right?"
                )
            word = row[kind_at] if kind_at is not None and kind_at < len(row) else ""
            for at, of_kind in columns:
                if at < len(row) and row[at].strip():
                    collected.add(row[at], rows.line_num, of_kind or word)
    except csv.Error as error:
        collected.fail(f"this is no CSV ({error})", rows.line_num, "quote cells that hold the delimiter")


def _columns(header: list[str], line: int, collected: _Collected) -> tuple[list[tuple[int, str]], int | None]:
    """Where hashes stand, each with the word for its kind ("" where another column or the admin says)."""
    columns = [(at, name) for at, name in enumerate(header) if name in _KIND_WORDS]
    columns += [(at, "") for at, name in enumerate(header) if name in _OF_ANY_KIND]
    if not columns:
        names = ", ".join(repr(name[:_SHOWN]) for name in header[:8])
        wanted = "pdq, sha256, md5 or hash"
        collected.fail(f"no column of hashes among {names}", line, f"call the column {wanted} in the first line")
    return columns, next((at for at, name in enumerate(header) if name in _KIND_COLUMNS), None)


def _read_json(data: bytes, text: str, collected: _Collected) -> None:
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        collected.fail(f"this is no JSON ({error.msg})", text.count("\n", 0, error.pos) + 1, "was it cut off?")
    for number, (entry, word) in enumerate(_entries(document, collected), start=1):
        if not isinstance(entry, str):
            shown = str(entry)[:_SHOWN]
            collected.fail(f"entry {number}, {shown!r}, is no hash", 0, "a hash is a string of hexadecimal digits")
        collected.add(entry, number, word)


def _entries(document: Any, collected: _Collected) -> Iterator[tuple[Any, str]]:
    if isinstance(document, Mapping):
        by_kind = document.get("hashes", document)
        if isinstance(by_kind, Mapping):
            known = {word: hashes for word, hashes in by_kind.items() if word.lower() in _KIND_WORDS}
            if not known or not all(isinstance(hashes, list) for hashes in known.values()):
                collected.fail("no hashes in this object", 0, 'write {"hashes": {"pdq": ["…"], "sha256": ["…"]}}')
            for word, hashes in known.items():
                yield from ((entry, word) for entry in hashes)
            return
        document = by_kind
    if not isinstance(document, list):
        collected.fail("neither an array nor an object of hashes", 0, 'write ["…", "…"] or {"hashes": {"pdq": ["…"]}}')
    for entry in document:
        if not isinstance(entry, Mapping):
            yield entry, ""
            continue
        fields = {str(name).lower(): value for name, value in entry.items()}
        word = next((str(fields[name]) for name in _KIND_COLUMNS if fields.get(name)), "")
        found = [(fields[name], name) for name in fields if name in _KIND_WORDS and fields[name]]
        found += [(fields[name], word) for name in _OF_ANY_KIND if fields.get(name)]
        if not found:
            yield entry, ""
        yield from found


def as_text(hashes: HashSet) -> Iterator[str]:
    """A set in the text form, line by line."""
    for kind in HashKind:
        for digits in hashes.hexadecimal(kind):
            yield f"{kind} {digits}"


def as_csv(hashes: HashSet) -> Iterator[str]:
    """A set as CSV, line by line."""
    yield "type,hash"
    for kind in HashKind:
        for digits in hashes.hexadecimal(kind):
            yield f"{kind},{digits}"
