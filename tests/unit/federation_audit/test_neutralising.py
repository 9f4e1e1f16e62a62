"""What strangers call themselves breaks no line, no cell, no markup."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.neutralising import cell, http_url, markdown, one_line

HOSTILE = st.text(max_size=300) | st.sampled_from(
    [
        "=1+1",
        "\t=1",
        "\u202egnp.exe",
        "a\r\nBcc: x",
        "<script>x</script>",
        "[x](javascript:x)",
        "\u2028=x",
        "\ud800<",
        "e" + "\u0301" * 99,
    ]
)
BIDI = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@settings(deadline=None)
@given(HOSTILE, st.integers(2, 60))
def test_a_line_is_one_line_without_control_or_direction_characters_and_bounded(text: str, most: int) -> None:
    line = one_line(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert not BIDI & set(line)
    assert all(unicodedata.category(each) not in ("Cc", "Cf", "Cs") for each in line)
    assert line.encode("utf-8").decode("utf-8") == line
    assert one_line(line, most) == line


@settings(deadline=None)
@given(HOSTILE)
def test_no_cell_is_a_formula(text: str) -> None:
    made = cell(text)
    assert made[:1] not in set("=+-@|%\t\r\n")
    assert len(made) <= 200


@settings(deadline=None)
@given(HOSTILE)
def test_markdown_has_no_html_and_no_markup_that_is_not_escaped(text: str) -> None:
    made = markdown(text)
    bare = made.replace("\\\\", "")
    for each in "<>&[]*_`#!|@":
        assert bare.count(each) == bare.count(f"\\{each}")


def test_a_name_of_ten_thousand_characters_is_cut() -> None:
    assert len(one_line("x" * 10_000)) == 200
    assert one_line("x" * 10_000).endswith("…")


def test_marks_that_are_stacked_on_one_letter_do_not_run_over_the_page() -> None:
    assert len(one_line("z" + "\u0335" * 500)) == 5


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://x.example/",
        "https://",
        "https://user:secret@x.example/",
        "https://x.example/\r\nX: y",
        "https://x.example/ onclick=x",
        "https://x.example/\u202eabc",
        "https://[::1",
        "https://[::1]x.example/",
        "https://[fe80::1%25eth0]/",
        "https://x.example/" + "x" * 3000,
        "",
    ],
)
def test_what_is_no_plain_http_address_is_none(text: str) -> None:
    assert http_url(text) == ""


def test_an_address_is_kept_and_what_would_end_it_is_encoded() -> None:
    assert http_url("https://x.example/post/1?a=b#c") == "https://x.example/post/1?a=b#c"
    assert http_url('https://x.example/"><b>') == "https://x.example/%22%3E%3Cb%3E"
    assert http_url("https://[2001:db8::1]:8443/post/[1]") == "https://[2001:db8::1]:8443/post/%5B1%5D"
    assert http_url("https://x.example/%41") == "https://x.example/%41"
