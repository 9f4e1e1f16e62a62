"""Text that strangers wrote, made safe to look at: escaped, isolated, nothing in it invisible, and short.

A name from elsewhere may hold markup, controls that turn the line round, characters that cannot be seen, or a hundred
accents on one letter. Each stands within a `<bdi>`, so that its direction ends where it ends.
"""

import unicodedata
from itertools import groupby

from markupsafe import Markup, escape

CUT = 80
TITLE_MOST = 4_000
_MARKS_MOST = 4
# Zero-width joiner and non-joiner: emoji and several scripts are written with them.
_WRITTEN_WITH = frozenset("\u200c\u200d")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing."""


def show_text(text: str, *, cut: int = CUT) -> Markup:
    """`text` as HTML, cut after `cut` characters, with the whole of it (to 4,000 characters) as its title."""
    whole = len(text)
    shown = "".join(_piece(unseen, "".join(run)) for unseen, run in groupby(text[:cut], _is_unseen))
    if whole <= cut:
        return Markup('<bdi class="said">{}</bdi>').format(Markup(shown))  # noqa: S704  # each piece is escaped
    title = plain_text(text[:TITLE_MOST]) + (f" … ({whole:,} characters)" if whole > TITLE_MOST else "")
    return Markup('<bdi class="said" title="{}">{}<span class="cut">… {} more</span></bdi>').format(
        title,
        Markup(shown),  # noqa: S704
        f"{whole - cut:,}",
    )


def plain_text(text: str) -> str:
    """`text` with what cannot be seen written out, such as ⟨U+202E⟩: for titles and plain text."""
    return "".join(f"⟨U+{ord(each):04X}⟩" if _is_unseen(each) else each for each in text)


def _piece(unseen: bool, run: str) -> str:
    if not unseen:
        return str(escape(_without_towers(run)))
    return "".join(_written_out(each) for each in run)


def _written_out(character: str) -> str:
    name = unicodedata.name(character, "a control character").lower()
    return str(Markup('<span class="unseen" title="{}">U+{}</span>').format(name, f"{ord(character):04X}"))


def _is_unseen(character: str) -> bool:
    if character in _WRITTEN_WITH:
        return False
    return unicodedata.category(character) in _UNSEEN or character in _BLANK


def _without_towers(text: str) -> str:
    """At most four marks on a letter: more of them would cover the lines around."""
    if not any(unicodedata.combining(each) for each in text):
        return text
    kept: list[str] = []
    marks = 0
    for each in text:
        marks = marks + 1 if unicodedata.category(each) in ("Mn", "Me") else 0
        if marks <= _MARKS_MOST:
            kept.append(each)
    return "".join(kept)
