"""What an assessment is to be told, found from the messages themselves, all at once and by plain sets."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from federation_audit.reviewing.outcomes import Opinion, Outcome, outcome_of
from federation_audit.store.periods import first_day
from schemas.messages import ActorForgotten, Confidence, Decision, Message, OriginObserved, Stage, Verdict
from schemas.topics import DAY_MS
from tests.stores import sha

IMAGES = {sha(number): number for number in range(2_000)}
Medium = tuple[str, int]
Incident = tuple[str, str, int, object]
"""Author's instance, actor, day, cluster."""


@dataclass(frozen=True)
class Seen:
    """An author's origin of a medium."""

    medium: Medium
    instance: str
    actor: str
    day: int
    confidence: Confidence


class Plain:
    """Two images of neighbouring numbers (0 and 1, 2 and 3, ...) look the same wherever a model flagged them."""

    def __init__(
        self,
        messages: Sequence[Message],
        opinions: Mapping[Medium, Collection[Opinion]] | None = None,
        verified: Collection[str] = (),
    ) -> None:
        self._opinions = opinions or {}
        self._verified = verified
        self.verdicts: dict[tuple[Medium, str, str], Verdict] = {}
        self._of_url: dict[str, set[Medium]] = defaultdict(set)
        newest: dict[bytes, OriginObserved] = {}
        forgotten: dict[bytes, int] = {}
        for each in messages:
            if isinstance(each, Verdict) and each.stage is not Stage.OVERRIDE:
                key = ((each.tenant, IMAGES[each.sha256]), each.policy, each.hash_list)
                if key not in self.verdicts or _order(self.verdicts[key]) < _order(each):
                    self.verdicts[key] = each
            elif isinstance(each, OriginObserved):
                if each.url and each.sha256:
                    self._of_url[each.url].add((each.tenant, IMAGES[each.sha256]))
                if each.origin_id not in newest or newest[each.origin_id].observed_at < each.observed_at:
                    newest[each.origin_id] = each
            elif isinstance(each, ActorForgotten):
                forgotten[each.pseudonym] = max(each.forgotten_at, forgotten.get(each.pseudonym, 0))
        self.origins = [
            each
            for each in newest.values()
            if not (each.author and each.observed_at <= forgotten.get(each.author.pseudonym, -1))
        ]
        flagged = [
            each
            for each in messages
            if isinstance(each, Verdict) and each.decision is not Decision.ACCEPT and each.stage is not Stage.OVERRIDE
        ]
        self.flagged_ever = {(each.tenant, IMAGES[each.sha256]) for each in flagged}
        self._looked_at = {IMAGES[each.sha256] for each in flagged if each.stage is Stage.LIVE}
        self.seen = [one for origin in self.origins for one in self._seen(origin)]
        self.firsts: dict[Medium, dict[str, int]] = defaultdict(dict)
        for one in self.seen:
            if one.confidence is not Confidence.POSSIBLE:
                known = self.firsts[one.medium].get(one.instance, one.day)
                self.firsts[one.medium][one.instance] = min(known, one.day)

    def _media(self, origin: OriginObserved) -> Collection[Medium]:
        if origin.sha256:
            return [(origin.tenant, IMAGES[origin.sha256])]
        return self._of_url.get(origin.url, ())

    def _seen(self, origin: OriginObserved) -> Collection[Seen]:
        author = origin.author
        if author is None:
            return ()
        at = origin.observed_at if origin.moment is None else min(origin.moment.at, origin.observed_at)
        actor = f"{author.key_id}:{author.pseudonym.hex()}" if author.pseudonym else ""
        return [Seen(medium, author.instance, actor, at // DAY_MS, author.confidence) for medium in self._media(origin)]

    def cluster(self, medium: Medium) -> object:
        image = medium[1]
        return image // 2 if image in self._looked_at else f"alone {image}"

    def first_incidents(self, medium: Medium) -> set[Incident]:
        """The incident of each instance's first sighting of a medium."""
        found = set()
        for instance, day in self.firsts[medium].items():
            actors = {
                one.actor
                for one in self.seen
                if (one.medium, one.instance, one.day) == (medium, instance, day)
                and one.confidence is not Confidence.POSSIBLE
            }
            found.add((instance, _one_of(actors), day, self.cluster(medium)))
        return found

    def exposures(self) -> dict[tuple[str | None, str, int], int]:
        """Media by author's instance, policy and period."""
        counts: dict[tuple[str | None, str, int], int] = defaultdict(int)
        for (medium, policy, hash_list), verdict in self.verdicts.items():
            if not hash_list:
                for instance, day in (self.firsts[medium] or {None: verdict.judged_at // DAY_MS}).items():
                    counts[instance, policy, first_day(day)] += 1
        return dict(counts)

    def flagged(self) -> dict[tuple[str | None, str, int], int]:
        """Flagged incidents, or media where the instance is not known."""
        found: dict[tuple[str | None, str, int], set[object]] = defaultdict(set)
        for (medium, policy, hash_list), verdict in self.verdicts.items():
            if hash_list or verdict.decision is Decision.ACCEPT:
                continue
            if not self.firsts[medium]:
                found[None, policy, first_day(verdict.judged_at // DAY_MS)].add(medium)
            for incident in self.first_incidents(medium):
                found[incident[0], policy, first_day(incident[2])].add(incident)
        return {key: len(each) for key, each in found.items()}

    def confirmed(self) -> dict[Medium, str]:
        """Confirmed media, and by whom."""
        how = {
            medium: "hash"
            for (medium, _, hash_list), verdict in self.verdicts.items()
            if hash_list.partition("@")[0] in self._verified and hash_list and verdict.decision is not Decision.ACCEPT
        }
        for medium, opinions in self._opinions.items():
            outcome = outcome_of(opinions)
            if outcome is Outcome.CONFIRMED and medium in self.flagged_ever:
                how[medium] = "reviewers"
            elif outcome is Outcome.DISMISSED:
                how.pop(medium, None)
        return how

    def incidents(self) -> dict[Incident, tuple[str, Confidence, str | None]]:
        """Confirmed incidents: by whom, how surely the instance's, and the image's host."""
        how = self.confirmed()
        order = [Confidence.POSSIBLE, Confidence.LIKELY, Confidence.CERTAIN]
        here = [one for one in self.seen if one.medium in how]
        named = {
            (one.instance, self.cluster(one.medium))
            for one in here
            if one.actor and one.confidence is not Confidence.POSSIBLE
        }
        behind: dict[Incident, list[Seen]] = defaultdict(list)
        for one in here:
            if one.confidence is Confidence.POSSIBLE and self.firsts[one.medium]:
                continue
            if one.actor or (one.instance, self.cluster(one.medium)) not in named:
                behind[one.instance, one.actor, one.day, self.cluster(one.medium)].append(one)
        found = {}
        for incident, its in behind.items():
            # one origin's medium may be seen by several origins of one actor and day: the surest counts
            by = "reviewers" if any(how[one.medium] == "reviewers" for one in its) else "hash"
            media = {one.medium for one in its}
            hosts = {
                origin.host.domain
                for origin in self.origins
                for medium in self._media(origin)
                if medium in media and origin.host and origin.host.confidence is not Confidence.POSSIBLE
            }
            host = incident[0] if incident[0] in hosts else min(hosts, default=None)
            found[incident] = (by, max((one.confidence for one in its), key=order.index), host)
        return found

    def reviews(self) -> dict[str, tuple[int, int]]:
        """Confirmed and dismissed incidents by policy."""
        seen: dict[str, tuple[set[object], set[object]]] = defaultdict(lambda: (set(), set()))
        for (medium, policy, hash_list), verdict in self.verdicts.items():
            outcome = outcome_of(self._opinions.get(medium, ()))
            if (
                hash_list
                or verdict.decision is Decision.ACCEPT
                or outcome not in (Outcome.CONFIRMED, Outcome.DISMISSED)
            ):
                continue
            seen[policy][outcome is Outcome.DISMISSED].update(self.first_incidents(medium) or {medium})
        return {policy: (len(yes), len(no - yes)) for policy, (yes, no) in seen.items()}


def _one_of(actors: set[str]) -> str:
    """Which of several actors of one day stands for them."""
    return min(actors - {""}, default="")


def _order(verdict: Verdict) -> tuple[int, str, int]:
    ranks = (Decision.ACCEPT, Decision.REVIEW, Decision.REJECT)
    return verdict.judged_at, verdict.scan_id, ranks.index(verdict.decision)
