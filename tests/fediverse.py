"""An invented fediverse, written into an audit store through the real recorder: what page tests look at.

    filled = fill(store)                          # 40 instances, some 7,000 images, reviewed; 5 s of CPU
    filled = fill(store, reviewed=False)          # the same, nobody has looked yet: everybody is at level 0 or 1
    filled.today                                  # assess at this day: see `a_day`
    filled.media["bad.example"]                   # sha256 of its pictures, the oldest first
    filled.flagged["bad.example"]                 # of the flagged ones
    review(store, filled.flagged["ash.example"], Opinion.CONFIRM)     # alice and bob say so, now
    review(store, [sha256], Opinion.UNSURE, by=("bob",), note="...")
    copy_filled(folder)                           # a database file with all of it: made once a process, then copied

`tests.pages.running_pages(folder, filled=True)` serves pages over such a copy; `pages.site.assessor` then assesses at
`filled.today`.

Who is in it (`LEVELS` says the level of each after `fill` with reviews; the rest is at 0):

bad.example        300 images; 7 confirmed incidents (one of tenant `SECOND`), 5 accounts, 35 days, near-duplicates
raid.example       210 images; 4 confirmed incidents by 4 accounts within 3 days
small.example      60 images; 2 confirmed incidents
drawings.example   220 images, one in four flagged, dismissed or not looked at
flooded.example    800 harmless images, and 8 bad ones by one account
new.example        14 images, one flagged, since two days
listed.example     205 images, one of which is on the list `LIST` (no reviewer looked)
hostile.example    6 images of post addresses and communities that want to break pages; some flagged
xn--bcher-kva.example, tiny0..tiny4.example   few images
TREES              ordinary ones: 205 images each, 0 to 6 flagged; mostly dismissed, some not reviewed
pixhost.example    nobody's instance: a host that a third of all pictures lie on

Besides: images whose author's instance is not known; second tenant `SECOND`; answers of every kind, some never judged,
some judged late; failures; files removed, absent and not removed. Days reach from 70 before `today` to one before it.
"""

import hashlib
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import delete, insert

from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.engine import Store
from federation_audit.store.recorder import Recorder
from federation_audit.store.state import note_reviews_change
from schemas.messages import (
    AnsweredBy,
    AnswerGiven,
    Confidence,
    Decision,
    EnforcementOutcome,
    Message,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import DAY_MS
from tests.stores import (
    FAR_BACK,
    answered,
    failed,
    judged,
    open_store,
    pdq,
    pseudonym,
    received,
    removed,
    sha,
    sqlite_url,
)

_TREES = """alder ash aspen beech birch box cedar cherry chestnut cypress elder elm fir hazel holly hornbeam juniper
larch laurel lime maple medlar oak pine poplar rowan spruce willow yew"""
TREES = tuple(f"{name}.example" for name in _TREES.split())
LEVELS = {"bad.example": 3, "raid.example": 2, "small.example": 2, "drawings.example": 1}
SECOND = "second"
"""The other tenant; most is for "default"."""
LIST = "known-hashes@7"
RULES = {"explicit": "Two models are sure that this picture is sexual.", "doubtful": "One model has its doubts."}
"""The rules that fire, and sentences for them."""

RLO = "\N{RIGHT-TO-LEFT OVERRIDE}"
HOSTILE = (
    "https://hostile.example/post/<script>alert(1)</script>",
    f"https://hostile.example/post/{RLO}gpj.elpmaxe",
    "javascript:alert(document.domain)",
    "https://hostile.example/post/'\"><img src=x onerror=alert(1)>",
    '=HYPERLINK("https://hostile.example")',
    "https://hostile.example/post/" + "a" * 2_000,
)
"""Addresses of posts (as long as messages allow), and, cut at 1,024 characters, ids of communities."""

_HOUR_MS = 3_600_000
_BACK = 70
_BATCH = 4_000


@dataclass(frozen=True)
class Filled:
    """What was written: the day that it is about, and sha256s by author's instance ("": not known), the oldest first.

    `confirmed` are those that alice and bob confirmed, `clusters` the sets of near-duplicates.
    """

    today: date
    media: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    flagged: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    confirmed: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    clusters: list[list[bytes]] = field(default_factory=list)
    second: list[bytes] = field(default_factory=list)


def a_day() -> date:
    """Today, where the quarter is old enough for level 3, else the last day of the one before."""
    today = datetime.now(UTC).date()
    first = date(today.year, (today.month - 1) // 3 * 3 + 1, 1)
    return today if (today - first).days >= 45 else first - timedelta(days=1)


def fill(store: Store, *, today: date | None = None, reviewed: bool = True) -> Filled:
    """Write it all into a store that has its tables and nothing else. `today` is to be 45 days into its quarter."""
    world = _World(Filled(today or a_day()))
    world.invent()
    recorder = Recorder(store, holder="fediverse", retention_days=FAR_BACK)
    messages = world.messages
    for first in range(0, len(messages), _BATCH):
        recorder.record(received(messages[first : first + _BATCH]), {})
    recorder.release()
    if reviewed:
        _review_all(store, world)
    return world.filled


def review(
    store: Store,
    sha256s: Iterable[bytes],
    opinion: Opinion = Opinion.CONFIRM,
    *,
    by: Sequence[str] = ("alice", "bob"),
    at: int | None = None,
    tenant: str = "default",
    note: str = "",
) -> None:
    """Write an opinion of each of `by` on each picture, over an earlier one of theirs. `at` is ms since the epoch."""
    when = round(datetime.now(UTC).timestamp() * 1000) if at is None else at
    rows = [
        {"tenant": tenant, "sha256": each, "reviewer": name, "opinion": opinion.value, "at": when, "note": note}
        for each in sha256s
        for name in by
    ]
    with store.writing() as connection:
        for row in rows:
            its = (REVIEWS.c[name] == row[name] for name in ("tenant", "sha256", "reviewer"))
            connection.execute(delete(REVIEWS).where(*its))
        if rows:
            connection.execute(insert(REVIEWS), rows)
        note_reviews_change(connection)


def copy_filled(folder: Path, *, reviewed: bool = True) -> tuple[str, Filled]:
    """The URL of a filled SQLite database of the caller's own in `folder`, and what is in it."""
    path, filled = _template(reviewed)
    url = sqlite_url(folder)
    shutil.copyfile(path, url.removeprefix("sqlite:///"))
    return url, filled


@cache
def _template(reviewed: bool) -> tuple[Path, Filled]:
    folder = _folder()
    own = folder / str(reviewed)
    own.mkdir()
    url = sqlite_url(own)
    with open_store(url) as store:
        filled = fill(store, reviewed=reviewed)
        with store.reading() as connection:
            connection.exec_driver_sql("SELECT 1")
    return Path(url.removeprefix("sqlite:///")), filled  # closing the last connection has emptied the log


@cache
def _folder() -> Path:
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="fediverse-"))
    return Path(_FOLDERS[-1].name)


_FOLDERS: list["tempfile.TemporaryDirectory[str]"] = []  # removed with the process


class _World:
    """The messages, and what they are about."""

    def __init__(self, filled: Filled) -> None:
        self.filled = filled
        self.messages: list[Message] = []
        self.dismissed: list[bytes] = []
        self._chance = random.Random(6)
        self._number = 0
        self._midnight = round(datetime(*filled.today.timetuple()[:3], tzinfo=UTC).timestamp() * 1000)
        self.settled = self._midnight - _HOUR_MS

    def invent(self) -> None:
        for place, name in enumerate(TREES):
            self.harmless(name, 205, flagged=(2, 0, 1, 4, 2, 3, 6)[place % 7] / 205, community=TREES[place // 2])
        self.harmless("bad.example", 288)
        for number in range(6):  # days 36, 29, 22, 15, 8, 1 before today
            looks = 3 if number % 2 == 0 else 1
            self.bad("bad.example", f"bad{number % 5}", days=36 - 7 * number, looks=looks, community=TREES[number])
        self.harmless("raid.example", 206)
        for number in range(4):
            self.bad("raid.example", f"raider{number}", days=6 - min(number, 2), community="oak.example")
        self.harmless("small.example", 58)
        for number in range(2):
            self.bad("small.example", f"small{number}", days=20 - 9 * number)
        self.harmless("drawings.example", 220, flagged=0.25)
        self.harmless("flooded.example", 800)
        for number in range(8):
            self.bad("flooded.example", "flooder", days=20 - number)
        self.harmless("new.example", 13, days=2, flagged=0.0)
        self.bad("new.example", "newcomer", days=1, confirmed=False)
        self.harmless("listed.example", 204)
        self.listed("listed.example")
        for place, name in enumerate(("xn--bcher-kva.example", *(f"tiny{number}.example" for number in range(5)))):
            self.harmless(name, 3 + place, flagged=0.0)
        self.hostile()
        self.unattributed()
        self.second()
        self.unlucky()

    def harmless(
        self, domain: str, count: int, *, flagged: float = 0.01, days: int = _BACK, community: str = ""
    ) -> None:
        """Evenly over the days; so many flagged, for nothing, which most reviewers see."""
        wrong = {round((place + 0.5) / flagged) for place in range(round(count * flagged))} if flagged else set()
        for number in range(count):
            back = days - number * days // count
            decision = Decision.ACCEPT
            if number in wrong:
                decision = Decision.REJECT if self._number % 2 else Decision.REVIEW
            actor = f"{domain} {self._chance.randrange(8)}"
            sha256 = self.picture(domain, actor, back, decision, community=community)
            if number in wrong and self._number % 3:
                self.dismissed.append(sha256)

    def bad(
        self, domain: str, actor: str, *, days: int, looks: int = 1, community: str = "", confirmed: bool = True
    ) -> None:
        """One account's picture, in so many near-duplicate files."""
        look = pdq(100_000 + self._number)
        files = []
        for number in range(looks):
            off = int.from_bytes(look, "big") ^ ((1 << 3 * number) - 1)
            files.append(
                self.picture(
                    domain,
                    actor,
                    days,
                    Decision.REJECT,
                    community=community,
                    look=off.to_bytes(32, "big"),
                    number=number,
                )
            )
        if looks > 1:
            self.filled.clusters.append(files)
        if confirmed:
            self.filled.confirmed[domain] += files

    def picture(
        self,
        domain: str,
        actor: str,
        days: int,
        decision: Decision,
        *,
        community: str = "",
        look: bytes | None = None,
        number: int = 0,
        tenant: str = "default",
        post: str | None = None,
        community_id: str = "",
    ) -> bytes:
        """One picture: its origin, verdict and answer, and what became of its file."""
        self._number += 1
        image = self._number
        sha256 = sha(image)
        at = self._midnight - days * DAY_MS + self._chance.randrange(2, 16) * _HOUR_MS + number * 60_000
        late = image % 97 == 0
        judged_at = at + (5 * _HOUR_MS if late else 2_000)
        fetched = image % 3 == 0
        town = community or domain
        self.messages += [
            OriginObserved(
                tenant=tenant,
                sha256=sha256,
                url=f"https://pixhost.example/{image}.webp" if fetched else "",
                place=Place.COMMENT if image % 5 == 0 else Place.POST_LINK,
                method=OriginMethod.DATABASE,
                host=OriginHost(domain="pixhost.example", confidence=Confidence.LIKELY) if fetched else None,
                author=OriginAuthor(
                    instance=domain,
                    pseudonym=pseudonym(actor) if actor else b"",
                    key_id=f"{self.filled.today.year}Q{(self.filled.today.month + 2) // 3}" if actor else "",
                    confidence=Confidence.CERTAIN,
                ),
                community=OriginCommunity(
                    instance=town,
                    actor_id=community_id or f"https://{town}/c/pictures",
                    confidence=Confidence.CERTAIN,
                ),
                moment=OriginMoment(at=at, confidence=Confidence.CERTAIN),
                post_url=f"https://{domain}/post/{image}" if post is None else post,
                observed_at=at + 5_000,
                observer="lemmy",
            ),
            self._verdict(image, decision, judged_at, look=look, tenant=tenant),
            self._answer(image, AnsweredBy.DEADLINE if late else AnsweredBy.VERDICT, at + 3_000, decision, tenant),
        ]
        if image % 11 == 0:  # seen again: counts once
            self.messages.append(self._answer(image, AnsweredBy.KNOWN, at + _HOUR_MS, decision, tenant))
        self.filled.media[domain].append(sha256)
        if decision is not Decision.ACCEPT:
            self.filled.flagged[domain].append(sha256)
        if decision is Decision.REJECT and late:
            self._removed(image, judged_at + 9_000, EnforcementOutcome.REMOVED, tenant)
        elif decision is Decision.REJECT and image % 4 == 0:
            outcome = EnforcementOutcome.FAILED if image % 8 == 0 else EnforcementOutcome.ABSENT
            self._removed(image, judged_at + 9_000, outcome, tenant)
        return sha256

    def listed(self, domain: str) -> None:
        """A picture on a list of known hashes: no model looked at it."""
        sha256 = self.picture(domain, "listed", 12, Decision.REJECT)
        at = self._midnight - 11 * DAY_MS
        self.messages.append(self._verdict(self._number, Decision.REJECT, at, stage=Stage.LIST))
        self.messages.append(self._answer(self._number, AnsweredBy.LIST, at, Decision.REJECT, "default"))
        self.filled.confirmed["listed by " + LIST].append(sha256)

    def hostile(self) -> None:
        for number, text in enumerate(HOSTILE):
            decision = Decision.REJECT if number % 2 == 0 else Decision.REVIEW
            self.picture(
                "hostile.example",
                f"hostile{number}",
                9,
                decision,
                post=text,
                community_id=f"{text}"[:1024],
                number=number,
            )

    def unattributed(self) -> None:
        """Fetched for views, and from whom nobody knows; three flagged, one of which two instances may have sent."""
        for number in range(120):
            self._number += 1
            at = self._midnight - (number % 60 + 1) * DAY_MS + _HOUR_MS
            decision = Decision.REJECT if number in (11, 51, 91) else Decision.ACCEPT
            self.messages.append(self._verdict(self._number, decision, at))
            self.messages.append(self._answer(self._number, AnsweredBy.VERDICT, at, decision, "default"))
            self.filled.media[""].append(sha(self._number))
            if decision is not Decision.ACCEPT:
                self.filled.flagged[""].append(sha(self._number))
            if number % 2:
                self.messages.append(self._fetched(self._number, at))
            if number == 51:
                for domain in ("oak.example", "pine.example"):
                    self.messages.append(self._perhaps(self._number, domain, at))

    def second(self) -> None:
        """The other tenant's pictures, one of them bad.example's."""
        for number in range(40):
            sha256 = self.picture(TREES[number % 5], f"second {number}", number + 1, Decision.ACCEPT, tenant=SECOND)
            self.filled.second.append(sha256)
        sha256 = self.picture("bad.example", "bad1", 10, Decision.REJECT, tenant=SECOND)
        self.filled.second.append(sha256)

    def unlucky(self) -> None:
        """Answered without a verdict, and judged never: or failed."""
        kinds = (
            AnsweredBy.DEADLINE,
            AnsweredBy.OVERLOAD,
            AnsweredBy.SPOOLED,
            AnsweredBy.UNREADABLE,
            AnsweredBy.OVERRIDE,
        )
        for number in range(30):
            self._number += 1
            at = self._midnight - (number % 15 + 1) * DAY_MS
            kind = kinds[number % len(kinds)]
            self.messages.append(self._answer(self._number, kind, at, Decision.ACCEPT, "default"))
            if number % 10 == 0:
                self.messages.append(failed(self._number, at=at))

    def _verdict(
        self,
        image: int,
        decision: Decision,
        at: int,
        *,
        look: bytes | None = None,
        stage: Stage = Stage.LIVE,
        tenant: str = "default",
    ) -> Verdict:
        rule = "explicit" if decision is Decision.REJECT else "doubtful"
        by_model = stage is Stage.LIVE
        rules = () if decision is Decision.ACCEPT else (RuleFired(name=rule, decision=decision, frame=0),)
        high = {Decision.ACCEPT: 0.04, Decision.REVIEW: 0.61, Decision.REJECT: 0.97}[decision]
        verdict = judged(
            image,
            decision,
            at=at,
            policy="default-cpu:1",
            tenant=tenant,
            looks=(look or pdq(image),) if by_model else (),
            stage=stage,
            hash_list="" if by_model else LIST,
            scan=f"scan-{image}",
        )
        return verdict.model_copy(
            update={
                "rules": rules if by_model else (),
                "scores": {"falconsai/nsfw": high, "marqo/nsfw": high - 0.02} if by_model else {},
                "models": {"falconsai": "falconsai:1", "marqo": "marqo:1"} if by_model else {},
                "media_type": "image/webp",
                "length": 20_000 + image,
            }
        )

    def _answer(self, image: int, by: AnsweredBy, at: int, decision: Decision, tenant: str) -> AnswerGiven:
        accepted = decision is not Decision.REJECT or by in (AnsweredBy.DEADLINE, AnsweredBy.OVERLOAD)
        return answered(image, by, at=at, accepted=accepted, tenant=tenant, milliseconds=40.0)

    def _removed(self, image: int, at: int, outcome: EnforcementOutcome, tenant: str) -> None:
        alias = f"{hashlib.md5(sha(image)).hexdigest()}.webp"
        self.messages.append(removed(image, at=at, after_ms=9_000, aliases=[alias], outcome=outcome, tenant=tenant))

    def _fetched(self, image: int, at: int) -> OriginObserved:
        return OriginObserved(
            tenant="default",
            sha256=sha(image),
            url=f"https://pixhost.example/{image}.webp",
            place=Place.PROXIED,
            method=OriginMethod.RELAY,
            host=OriginHost(domain="pixhost.example", confidence=Confidence.CERTAIN),
            observed_at=at,
            observer="relay",
        )

    def _perhaps(self, image: int, domain: str, at: int) -> OriginObserved:
        return OriginObserved(
            tenant="default",
            sha256=sha(image),
            place=Place.POST_TEXT,
            method=OriginMethod.DATABASE,
            author=OriginAuthor(instance=domain, pseudonym=b"", key_id="", confidence=Confidence.POSSIBLE),
            post_url=f"https://{domain}/post/{image}",
            observed_at=at,
            observer="lemmy",
        )


def _review_all(store: Store, world: _World) -> None:
    """What alice and bob said late yesterday; carol disagrees here and there."""
    at = world.settled
    filled = world.filled
    for domain, files in filled.confirmed.items():
        if not domain.startswith("listed by"):
            review(store, files, at=at)
    review(store, world.dismissed, Opinion.DISMISS, by=("alice",), at=at)
    left = [each for name in TREES for each in filled.flagged[name] if each not in set(world.dismissed)]
    review(store, left[:1], at=at, by=("alice",), note="looks like it")
    review(store, left[1:2], at=at, by=("alice",))
    review(store, left[1:2], Opinion.DISMISS, at=at, by=("carol",), note="a statue")
    review(store, left[2:3], Opinion.UNSURE, at=at, by=("bob",))
    review(store, filled.second[-1:], at=at, tenant=SECOND)
