"""Why images keep their decision, whatever a rescan says: the words of `Rejudged.held`, and what they mean."""

from typing import Final

ERASED: Final = "erased"
"""Nobody publishes it: of an image that was judged from frames and is refused by now."""

WORDS: Final = {
    "override": "an override holds",
    "list": "a hash list decided",
    "incomplete": "a score or a vector that is needed is not kept",
    ERASED: "refused by now: the archive lets go of its frames",
    "unreadable": "the archived frames cannot be read",
}
