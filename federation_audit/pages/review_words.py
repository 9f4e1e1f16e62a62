"""What a person reads of an image that is reviewed: reasons, what judged it, where it was seen, what came of it."""

from collections.abc import Mapping, Sequence

from federation_audit.pages.cells import Cell, Listed, Said, Tone
from federation_audit.reviewing.closeup import Seen
from federation_audit.reviewing.outcomes import Opinion, Outcome
from federation_audit.store.queries import Stratum

SAID_SO = {Opinion.CONFIRM: "confirmed", Opinion.DISMISS: "dismissed", Opinion.UNSURE: "unsure"}
TONES: Mapping[Outcome, Tone] = {
    Outcome.CONFIRMED: "bad",
    Outcome.DISMISSED: "good",
    Outcome.DISPUTED: "watch",
    Outcome.OPEN: "plain",
}


def sentence_of(rule: str, sentences: Mapping[str, str]) -> str:
    """What a rule means, in words: the policy's own, or that it is a list's; else its name."""
    if rule.startswith("list:"):
        return f"The known-hash list {rule.removeprefix('list:')} has it."
    return sentences.get(rule, f"Rule {rule}")


def others_in_words(others: int, agree: bool) -> str:
    """Such as ``2 others, who agree``."""
    if others < 2:
        return "1 other" if others else "nobody else"
    return f"{others} others, who {'agree' if agree else 'do not agree'}"


def stratum_in_words(stratum: Stratum) -> str:
    """What judged."""
    if stratum.is_list:
        return f"known-hash list {stratum.hash_list}"
    models = ", ".join(sorted(stratum.models))
    return f"{models}; policy {stratum.policy}" + (f"; list {stratum.hash_list}" if stratum.hash_list else "")


def seen_in_words(seen: Seen) -> str:
    """An origin in one line."""
    parts = [seen.place]
    parts += [f"author on {seen.author} ({seen.author_sure})"] if seen.author else []
    parts += [f"in {seen.community} ({seen.community_sure})"] if seen.community else []
    parts += [f"image on {seen.host} ({seen.host_sure})"] if seen.host else []
    return ", ".join([*parts, f"by {seen.method}"])


def domains(names: Sequence[str]) -> Cell:
    """Domains in a cell; unknown where there is none."""
    return Listed([Said(each) for each in names]) if names else None
