"""Where everything stands in a TOML file.

tomllib gives values without positions, and so do tomlkit and rtoml; spanned-toml, which does, has not been kept up.
So tomllib reads and checks the file, and what is here only finds, in text that is known to be valid TOML, where each
key and value begins.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
"""Keys and indexes from the top of the document, as ``("rule", 2, "when", "all", 0)``."""

_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n,]|#[^\n]*)*")
_REST_OF_LINE = re.compile(r"[^\n]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")


@dataclass(frozen=True, slots=True)
class Positions:
    """Offsets in `text` by path: `keys` of a key (or a table's header), `values` of what it is set to."""

    text: str
    keys: dict[Path, int] = field(default_factory=dict)
    values: dict[Path, int] = field(default_factory=dict)

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def key(self, path: Path) -> tuple[int, int]:
        """Line and column of a key, a header or an array's element; of the nearest one around it where it is none."""
        return self._find(path, self.keys, self.values)

    def value(self, path: Path) -> tuple[int, int]:
        """Line and column of a value, likewise."""
        return self._find(path, self.values, self.keys)

    def _find(self, path: Path, first: dict[Path, int], second: dict[Path, int]) -> tuple[int, int]:
        while path:
            offset = first.get(path, second.get(path))
            if offset is not None:
                return self.place(offset)
            path = path[:-1]
        return 1, 1


def find_positions(text: str) -> Positions:
    """Find where everything stands in `text`, which `tomllib.loads` has accepted."""
    text = text.replace("\r\n", "\n")
    positions = Positions(text)
    _Finder(positions).document()
    return positions


class _Finder:
    def __init__(self, positions: Positions) -> None:
        self._positions = positions
        self._text = positions.text
        self._at = 0
        self._tables: dict[Path, int] = {}
        """Arrays of tables by path, with the index of the last table."""

    def document(self) -> None:
        table: Path = ()
        while self._skip(_GAP) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_REST_OF_LINE)

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        path: Path = ()
        for name, _ in self._key():
            if path in self._tables:
                path = (*path, self._tables[path])
            path = (*path, name)
        if is_array:
            self._tables[path] = self._tables.get(path, -1) + 1
            path = (*path, self._tables[path])
        self._positions.keys.setdefault(path, start)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for name, offset in self._key():
            path = (*path, name)
            self._positions.keys.setdefault(path, offset)
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key with their offsets."""
        while True:
            start = self._skip(_SPACE)
            quoted = self._text[start] in "\"'"
            end = self._skip(_STRING if quoted else _BARE_KEY)
            raw = self._text[start:end]
            yield (tomllib.loads(f"key = {raw}")["key"] if quoted else raw), start
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return
            self._at += 1

    def _value(self, path: Path) -> None:
        self._positions.values[path] = self._at
        match self._text[self._at]:
            case "[":
                self._at += 1
                index = 0
                while self._text[self._skip(_GAP)] != "]":
                    self._value((*path, index))
                    index += 1
                self._at += 1
            case "{":
                self._at += 1
                while self._text[self._skip(_GAP)] != "}":
                    self._pair(path)
                self._at += 1
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Move behind what `pattern` matches here, and return the offset."""
        matched = pattern.match(self._text, self._at)
        assert matched is not None, f"no {pattern.pattern} at offset {self._at}"
        self._at = matched.end()
        return self._at
