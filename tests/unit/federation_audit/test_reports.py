"""The report to another instance's admins: readable, complete, and never an image."""

import email
import json
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.cases import RuleHit
from federation_audit.reports.formats import ReportStyle, style_report
from federation_audit.reports.json import as_json
from federation_audit.reports.markdown import as_markdown
from federation_audit.reports.report import NothingToReport, make_report
from federation_audit.reports.text import as_text
from schemas.domains import normalise_domain
from tests.unit.federation_audit.samples import case, incident
from tests.unit.federation_audit.test_exports import SPELLINGS, STRANGERS

GOLDEN = Path(__file__).with_name("golden")

HOSTILE = st.text(max_size=120) | st.sampled_from(
    [
        "<img src=x onerror=alert(1)>",
        "![x](https://evil.example/x.png)",
        "\u202e<b>",
        "x" * 10_000,
        "\ud800",
        "a\r\n\r\n# b",
        "=1+1",
    ]
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.txt", as_text(make_report(case(), answer_to="abuse@my.example"))),
        ("report.md", as_markdown(make_report(case(), answer_to="abuse@my.example"))),
        ("report.json", as_json(case()).decode()),
    ],
)
def test_the_report_reads_as_it_is_kept_here_to_be_read(name: str, content: str) -> None:
    """After a change of words: python -m tests.unit.federation_audit.test_reports, and read what it wrote."""
    assert content == (GOLDEN / name).read_text()


def test_only_confirmed_incidents_are_reported() -> None:
    assert len(json.loads(as_json(case()))["incidents"]) == 3
    assert "2026-11-20" not in as_text(make_report(case()))
    with pytest.raises(NothingToReport, match="review them first"):
        make_report(case(incidents=(incident(1, confirmed_by=""),)))


def test_a_report_of_many_incidents_says_how_many_are_in_the_json_alone() -> None:
    many = case(incidents=tuple(incident(1 + number % 28, actor=f"a{number}") for number in range(70)))
    text = as_text(make_report(many))
    assert "20 more incidents are in the attached JSON" in text
    assert len(json.loads(as_json(many))["incidents"]) == 70


@pytest.mark.parametrize(
    "url",
    [
        "https://bad.example/pictrs/image/0b1f.webp",
        "https://bad.example/x.JPG",
        "https://bad.example/x.png?size=1",
        "https://bad.example/api/v3/image_proxy?url=x",
        "https://files.bad.example/media_attachments/files/1/original/x",
        "javascript:alert(1)",
    ],
)
def test_the_address_of_an_image_is_not_reported_even_as_a_posts(url: str) -> None:
    picture = case(incidents=(incident(1, posts=(url,)),))
    for content in (as_text(make_report(picture)), as_markdown(make_report(picture)), as_json(picture).decode()):
        assert url not in content
    assert "We do not know the address of the post" in as_text(make_report(picture))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_name_of_a_stranger_becomes_markup_a_line_or_a_link(name: str, sentence: str, place: str) -> None:
    hostile = case(
        tenant=name or "x",
        reasons=(sentence,),
        incidents=(
            incident(
                1,
                actor=name,
                communities=(place,),
                image_host=place,
                lists=(name,),
                rules=(RuleHit(name, sentence),),
                confirmed_by=sentence or "x",
            ),
        ),
    )
    plain = as_markdown(make_report(hostile))
    unescaped = re.sub(r"\\.", "", plain)
    tags = _Tags()
    tags.feed(re.sub(r"<https?://[^<>\s]*>", "", unescaped))
    assert tags.tags == []
    assert "![" not in unescaped and "](" not in unescaped
    assert not set("\u202e\u2066\u200f") & set(plain)
    usual = as_markdown(make_report(case(incidents=(incident(1),))))
    headings = [line for line in plain.splitlines() if line.startswith("#")]
    assert len(headings) == len([line for line in usual.splitlines() if line.startswith("#")])
    assert len(plain) < 20_000
    json.loads(as_json(hostile))
    assert email.message_from_string(f"Subject: {make_report(hostile).subject}\n\n").keys() == ["Subject"]


@pytest.mark.parametrize("text", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("style", list(ReportStyle))
def test_in_every_style_strangers_break_out_of_nothing(style: ReportStyle, text: str) -> None:
    def lines_of(text: str) -> list[str]:
        said = incident(
            1, actor=text, communities=(text,), image_host=text, lists=(text,), confirmed_by=text, posts=(text,)
        )
        made = case(tenant=text, reasons=(text,), link=text, incidents=(replace(said, rules=(RuleHit(text, text),)),))
        return style_report(made, style, answer_to=text).decode().split("\n")

    found, usual = lines_of(text), lines_of("usual")
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for line in found for each in line)
    assert sum(map(len, found)) < 8_000
    if style is ReportStyle.JSON:
        assert json.loads("\n".join(found)).keys() == json.loads("\n".join(usual)).keys()
        return
    marks = "#" if style is ReportStyle.MARKDOWN else "-" * 8
    assert sum(line.startswith(marks) for line in found) == sum(line.startswith(marks) for line in usual)


@pytest.mark.parametrize(("spelling", "domain"), SPELLINGS.items())
@pytest.mark.parametrize("style", list(ReportStyle))
def test_in_every_style_a_domain_has_our_form(style: ReportStyle, spelling: str, domain: str) -> None:
    name = normalise_domain(spelling)
    post = f"https://{name}/post/1"
    made = case(domain=name, incidents=(incident(1, image_host=name, posts=(post,)),))
    text = re.sub(r"\\(.)", r"\1", style_report(made, style).decode())
    assert name == domain and domain in text and post in text
    assert spelling not in text and "8443" not in text and "8536" not in text
    assert style is ReportStyle.JSON or "lay on your instance" in text


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    made = make_report(case(), answer_to="abuse@my.example")
    (GOLDEN / "report.txt").write_text(as_text(made))
    (GOLDEN / "report.md").write_text(as_markdown(made))
    (GOLDEN / "report.json").write_bytes(as_json(case()))
