"""Cases as files, as `audit export` and `audit report` will write them."""

import json
import stat
from pathlib import Path

import pytest

from federation_audit.exports.coop import CoopTypes
from federation_audit.exports.formats import Exporter, ExportFormat, make_export
from federation_audit.reports.formats import ReportStyle
from fediwarden.cli.export import write_export, write_report
from tests.unit.federation_audit.samples import case, judged


@pytest.mark.parametrize("form", list(ExportFormat))
def test_every_format_is_made_from_a_list_of_cases(form: ExportFormat) -> None:
    made = make_export(form, [judged()], Exporter("https://my.example/", CoopTypes("incident", "person")))
    assert b"bad.example" in made.content
    assert made.left_out == ()


def test_a_file_is_for_its_owner_alone_and_what_is_left_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "blocks.csv"
    write_export(ExportFormat.MASTODON, [judged(), judged(domain="[::1]")], output=output)
    assert "bad.example,suspend" in output.read_text()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("left out: [::1]: ")


def test_without_a_file_it_goes_to_standard_output(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write_export(ExportFormat.LEMMY_0_19, [judged()])
    assert capsysbinary.readouterr().out == b"bad.example\n"


@pytest.mark.parametrize("style", list(ReportStyle))
def test_a_report_is_written_in_every_style(style: ReportStyle, tmp_path: Path) -> None:
    output = tmp_path / "report"
    write_report(case(), style, answer_to="abuse@my.example", output=output)
    text = output.read_text()
    assert "bad" in text
    if style is ReportStyle.JSON:
        assert json.loads(text)["schema"] == "fediwarden.report/1"
