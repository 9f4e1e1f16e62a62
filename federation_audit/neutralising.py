"""Text of strangers made harmless: what an instance, an actor or a community calls itself is never trusted.

Four places where it may end up, and what is dangerous there: a line (line breaks, control and direction characters), a
spreadsheet's cell (formulas), Markdown (markup and HTML), a URL (other schemes).
"""

import re
import unicodedata
from urllib.parse import quote, urlsplit

ELLIPSIS = "…"

# Spreadsheets take what begins so for a formula. Tab and line breaks may stand before it, full-width forms count too.
_FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\t\r\n|%＝＋－＠]")
_MARKUP = re.compile(
    r"[\\`*_{}\[\]<>#!|~&^$@]"  # markup, HTML and entities, mentions, formulas: wherever it stands
    r"|:(?=//)|(?<=\bwww)\."  # what some programs make links of by themselves
    r"|^[-+=]|(?<=^\d)[.)]|(?<=^\d\d)[.)]|(?<=^\d{3})[.)]|(?<=^\d{4})[.)]",  # a list or a line, at the beginning
    re.IGNORECASE,
)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_URL_MOST = 2048
_URL_SAFE = "!#$%&'*+,-./:;=?@_~"
# Cc and Cf are control, format and direction characters (and the invisible ones), Zl and Zp line breaks, Cs halves of
# characters, Co and Cn nobody's.
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS_MOST = 4


def one_line(text: str, most: int = 200) -> str:
    """`text` on one line of at most `most` characters, none of which breaks a line, hides, or turns the direction.

    Of marks stacked on one letter the first four stay.
    """
    kept: list[str] = []
    marks = 0
    # What is cut away anyway is not looked at; ten for one, as much of it may be dropped.
    for each in text[: most * 10]:
        category = unicodedata.category(each)
        if each in "\r\n\t" or category in ("Zl", "Zp"):
            kept.append(" ")
            marks = 0
        elif category not in _DROPPED:
            marks = marks + 1 if category in ("Mn", "Me") else 0
            if marks <= _MARKS_MOST:
                kept.append(each)
    line = " ".join("".join(kept).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + ELLIPSIS


def cell(text: str, most: int = 200) -> str:
    """`text` as a spreadsheet's cell that no program takes for a formula: after an apostrophe where it might be."""
    return guard_field(one_line(text, most - 1))


def guard_field(text: str) -> str:
    """`text` as a spreadsheet takes it for text: an apostrophe is put before what could be a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def markdown(text: str, most: int = 200) -> str:
    """`text` as Markdown that shows it and nothing else: what could be markup, HTML or a link is escaped."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", one_line(text, most))


def http_url(text: str) -> str:
    """`text` where it is an http(s) address, in ASCII without anything that ends or marks it up; else ''."""
    candidate = text.strip()
    if len(candidate) > _URL_MOST or one_line(candidate, _URL_MOST) != candidate or " " in candidate:
        return ""
    try:
        parts = urlsplit(candidate)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return ""
    if "[" in parts.netloc and _IPV6.fullmatch(parts.netloc) is None:
        return ""
    scheme, _, rest = candidate.partition("//")
    path = rest[len(parts.netloc) :]
    url = f"{scheme}//{quote(parts.netloc, safe=_URL_SAFE + '[]')}{quote(path, safe=_URL_SAFE)}"
    return url if len(url) <= _URL_MOST else ""
