from pathlib import Path

import pytest

from fediwarden.reference.__main__ import DOCS, put
from fediwarden.reference.commands import BEGIN, END, command_reference


def test_the_reference_of_commands_is_what_the_code_says() -> None:
    held = (DOCS / "commands.md").read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert held == command_reference().strip(), "out of date: make reference"


def test_the_reference_has_every_command_with_its_options_and_none_without_a_meaning() -> None:
    reference = command_reference()
    for called in ("fediwarden up", "fediwarden rescan", "fediwarden rescan apply", "fediwarden import"):
        assert f"\n## `{called}`\n" in reference
    assert "\n## `fediwarden topics`\n" not in reference, "alone it only shows its help"
    assert "fediwarden scan [OPTIONS] {FILE|FOLDER...}..." in reference
    assert "| `--max-removals N` | " in reference
    assert "|  |" not in reference


def test_a_reference_is_set_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<a>\nold\n<b>\nafter\n")
    put(page, "<a>", "new\n", "<b>")
    put(page, "<a>", "new\n", "<b>")
    assert page.read_text() == "before\n<a>\n\nnew\n\n<b>\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks the line <a>"):
        put(page, "<a>", "new", "<b>")
    assert page.read_text() == "no marks\n"
