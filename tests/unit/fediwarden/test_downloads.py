"""How far a download is: bars on a terminal, few plain lines elsewhere, nothing for what is there already."""

import io

import pytest
from rich.console import Console

from fediwarden.downloads import Downloads


def shown(*, terminal: bool, reports: list[tuple[int, int]]) -> str:
    output = io.StringIO()
    with Downloads(Console(file=output, force_terminal=terminal, width=100)) as downloads:
        report = downloads.track("Apache Kafka")
        for done, total in reports:
            report(done, total)
    return output.getvalue()


def test_a_terminal_sees_a_bar_with_name_and_size():
    output = shown(terminal=True, reports=[(0, 43_000_000), (43_000_000, 43_000_000)])
    assert "Apache Kafka" in output
    assert "43.0/43.0 MB" in output


def test_a_log_sees_a_line_at_every_quarter_and_no_escape_codes():
    output = shown(terminal=False, reports=[(mb * 1_000_000, 40_000_000) for mb in range(41)])
    assert output.splitlines() == [f"fetching Apache Kafka: {mb} of 40 MB" for mb in (0, 10, 20, 30, 40)]


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_for_what_is_there_already(terminal):
    assert shown(terminal=terminal, reports=[(5, 5), (0, 0)]) == ""


def test_a_download_that_starts_over_is_no_new_line():
    output = shown(terminal=False, reports=[(30, 100), (0, 100), (30, 100), (60, 100)])
    assert len(output.splitlines()) == 2
