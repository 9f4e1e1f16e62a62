"""Where keys and values of a TOML file stand: compared with what tomllib reads at the places that are named."""

import json
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.policy.positions import Path, Positions, find_positions

TRICKY = '''# a = 1
title = "a # in a text" # a comment
"quoted.key" = 'literal \\'
many."dotted \\u0041".keys = 1_000

[table]  # comment
text = """
[[not.a.header]] with \\"quotes\\" and ""two"" at the end"""""
raw = \'\'\'
key = 'no key' \'\'\'
when = 1979-05-27 07:32:32
nothing = []
list = [ # one
    1, [2, 3], # two, ] }
    { a = "}", b.c = [ { d = -0.5e1 } ] },
]

[[array]]
name = "first"
[array.sub]
deep = inf
[[array.inner]]
x = true
[[array.inner]]
x = false
[[array]]
name = "second"
[[array.inner]]
x = 0xFF
'''


def reread(positions: Positions, path: Path) -> Any:
    """What stands at the place of a value, read by itself: the shortest text from there that is a value."""
    rest = positions.text[positions.values[path] :]
    found = None
    for end in range(1, len(rest) + 1):
        if end < len(rest) and rest[end] not in " \n,]}#":
            continue
        try:
            found = tomllib.loads(f"x = {rest[:end]}")["x"]
        except tomllib.TOMLDecodeError:
            continue
        if not rest[:end].startswith('"""') or rest[end : end + 1] in ("", "\n"):
            return found
    return found


def leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in leaves(each, (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for index, each in enumerate(value) for leaf in leaves(each, (*path, index))]
    return [(path, value)] if path else []


def test_every_value_of_a_tricky_file_is_found_where_it_stands() -> None:
    positions = find_positions(TRICKY)
    found = leaves(tomllib.loads(TRICKY))
    assert len(found) == 18
    for path, value in found:
        if path != ("table", "when"):  # a date with a space in it is not the shortest value there
            assert reread(positions, path) == value, path
    assert positions.text[positions.values["table", "when"] :].startswith("1979-05-27 07:32:32")


def test_keys_and_headers_have_their_line_and_column() -> None:
    positions = find_positions(TRICKY)
    assert positions.key(("many", "dotted A", "keys")) == (4, 22)
    assert positions.key(("array", 0, "inner", 1)) == (24, 1)
    assert positions.key(("array", 1)) == (26, 1)
    assert positions.value(("table", "list", 2, "b", "c", 0, "d")) == (15, 30)


def test_what_is_missing_is_placed_at_what_it_should_be_in() -> None:
    positions = find_positions(TRICKY)
    assert positions.value(("array", 1, "inner", 0, "y")) == (28, 1)
    assert positions.value(("no", "such")) == (1, 1)


def test_carriage_returns_move_nothing() -> None:
    first, second = find_positions(TRICKY), find_positions(TRICKY.replace("\n", "\r\n"))
    for path, _ in leaves(tomllib.loads(TRICKY)):
        assert first.value(path) == second.value(path)


texts = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs", "Cc")), max_size=8)
scalars = st.integers(-99, 99) | st.booleans() | st.floats(-9, 9).map(lambda number: round(number, 3)) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def as_toml(value: Any, gap: str) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(key)} = {as_toml(each, gap)}" for key, each in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return "[" + gap + f",{gap}".join(as_toml(each, gap) for each in value) + gap + "]"
    return json.dumps(value)


@settings(deadline=None)
@given(st.dictionaries(texts, values, max_size=4), st.sampled_from(["", " ", "\n  ", " # ] } , \" '\n\t"]))
def test_every_value_of_any_document_is_found(document: dict[str, Any], gap: str) -> None:
    text = "".join(f"{json.dumps(key)} = {as_toml(each, gap)} # end\n" for key, each in document.items())
    read = tomllib.loads(text)
    positions = find_positions(text)
    for path, value in leaves(read):
        if value == {}:
            assert positions.text[positions.values[path]] == "{"
            continue
        rest = positions.text[positions.values[path] :]
        written = json.dumps(value) if not isinstance(value, list) else "["
        assert rest.startswith(written), path
