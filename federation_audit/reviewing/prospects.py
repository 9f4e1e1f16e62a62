"""What happens if an image is confirmed, as sentences. They never give away what others said."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

from federation_audit.reviewing.outcomes import Reviewed
from federation_audit.store.periods import as_date

_ORDINALS = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)
_NAMED_MOST = 3


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The incidents of an instance that are confirmed since `since`, as (day, cluster)."""

    since: date
    incidents: frozenset[tuple[date, str]]


def foresee(
    reviewed: Mapping[int, Reviewed],
    incidents: Mapping[str, Collection[tuple[int, int]]],
    *,
    cluster: str,
    confirmed: Mapping[str, Confirmed],
    local_domains: Collection[str],
) -> list[str]:
    """What a confirmation does. `reviewed` is what others said, by image; `incidents` are actor and day, by instance.

    `confirmed` has the instances that are assessed.
    """
    if not reviewed:
        return ["Nobody else has reviewed it: a second reviewer is needed."]
    if any(len({each.opinion for each in one.reviews}) > 1 for one in reviewed.values()):
        return ["Others do not agree about it. It is settled once one side has two more than the other."]
    others = {each.reviewer for one in reviewed.values() for each in one.reviews}
    condition = "If the other reviewer confirmed it too" if len(others) == 1 else "If one of the others confirmed it"
    foreign = {domain: keys for domain, keys in incidents.items() if domain not in local_domains}
    told = []
    if foreign:
        named = sorted(foreign)[:_NAMED_MOST]
        parts = [_of_instance(domain, foreign[domain], cluster, confirmed.get(domain)) for domain in named]
        more = len(foreign) - len(named)
        told.append(f"{condition}, {_joined(parts)}{f'; and so on for {more} more instances' if more else ''}.")
    own = sorted(set(incidents) & set(local_domains))
    if own:
        told.append(
            f"{'' if told else condition + ', it is confirmed. '}{', '.join(own)} is your own: it is never assessed."
        )
    if not incidents:
        told.append(f"{condition}, it is confirmed. It counts against no instance: where it was posted is not known.")
    return told


def _of_instance(domain: str, keys: Collection[tuple[int, int]], cluster: str, known: Confirmed | None) -> str:
    already = known.incidents if known is not None else frozenset()
    named = {key for key in keys if key[0]} or set(keys)  # those not known count where none is known
    new = {(actor, day) for actor, day in named if (as_date(day), cluster) not in already}
    if not new:
        return f"it belongs to an incident of {domain} that is confirmed already"
    before = len(already)
    if len(new) > 1:
        return f"it becomes {len(new)} confirmed incidents of {domain}, which has {before or 'none'} so far"
    since = f" since {known.since.isoformat()}" if known is not None and before else ""
    return f"it becomes a confirmed incident of {domain}, its {ordinal(before + 1)}{since}"


def ordinal(number: int) -> str:
    """``first``, ``tenth``, ``11th``."""
    if number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _joined(parts: list[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
