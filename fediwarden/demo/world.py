"""An invented fediverse: its instances, who posts there, and a week of posts. Same seed, same week.

Days go back from today: the oldest is `OLDEST` days ago, so that what began then went on for seven days.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from federation_audit.statistics.assessment import assess
from federation_audit.statistics.decision import quarter_start
from federation_audit.statistics.events import Confirmation, Evidence, Exposure, Incident, Reviews, Stratum
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.statistics.levels import Level
from federation_audit.statistics.rules import DEFAULT_RULES
from fediwarden.demo.pictures import Motif, chance_of

OLDEST: Final = 7
IMAGES: Final = 2_000
"""How many images the week has where nobody says otherwise."""

IMAGES_LEAST: Final = 150
SEED: Final = 20_26
HOME: Final = "home.example"
"""Our own instance, whose people are never assessed."""

IMAGE_HOST: Final = "pictures.example"
FALSE_POSITIVES: Final = 0.01
"""The share of harmless pictures that the demo's policy flags, about."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Forbidden pictures that one account posted on one day: copies of the motif of this number."""

    days_ago: int
    account: str
    motif: int
    copies: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Instance:
    """One of the cast. `share` is its part in the week's harmless images, `part` says what to look at."""

    domain: str
    share: float
    part: str
    accounts: tuple[str, ...]
    deeds: tuple[Deed, ...] = ()
    is_innocent: bool = True


CAST: Final = (
    Instance(
        "harbour.example", 0.130, "an ordinary instance", ("anchor", "buoy", "capstan", "dinghy", "eddy", "fjord")
    ),
    Instance("meadow.example", 0.125, "an ordinary instance", ("clover", "daisy", "fern", "grass", "heather")),
    Instance(
        "library.example",
        0.125,
        "an ordinary instance where it happened once",
        ("folio", "index", "quarto", "shelf", "volume"),
        (Deed(4, "volume", 100),),
    ),
    Instance(
        "starfall.example",
        0.135,
        "several accounts post stars, all week long",
        ("altair", "deneb", "rigel", "sirius", "spica", "vega"),
        (
            Deed(7, "sirius", 1, (1, 2)),
            Deed(6, "vega", 2),
            Deed(5, "sirius", 3),
            Deed(5, "rigel", 4, (1, 2)),
            Deed(4, "vega", 1, (3,)),
            Deed(3, "deneb", 5),
            Deed(2, "rigel", 2, (2,)),
            Deed(1, "sirius", 4, (3,)),
            Deed(1, "deneb", 6),
            Deed(0, "vega", 7),
            Deed(0, "deneb", 3, (2,)),
        ),
        is_innocent=False,
    ),
    Instance(
        "twilight.example",
        0.135,
        "three accounts post stars, for three days only",
        ("dusk", "ember", "gloam", "haze", "umbra"),
        (Deed(3, "dusk", 11, (1, 2)), Deed(2, "gloam", 12), Deed(1, "ember", 13), Deed(1, "dusk", 14)),
        is_innocent=False,
    ),
    Instance(
        "metropolis.example",
        0.215,
        "large and innocent; one account floods it with stars",
        ("avenue", "bridge", "corner", "district", "flood", "kiosk", "market", "plaza", "quay", "station", "tower"),
        (
            Deed(4, "flood", 21, (1, 2, 3, 4, 5)),
            Deed(4, "flood", 22, (1, 2, 3, 4, 5)),
            Deed(3, "flood", 23, (1, 2, 3, 4)),
        ),
    ),
    Instance("village.example", 0.045, "a small ordinary instance", ("baker", "miller", "smith")),
    Instance("sapling.example", 0.0125, "tiny and new, with one star", ("sprout", "twig"), (Deed(2, "twig", 31),)),
    Instance(HOME, 0.045, "our own instance: its people are our own matter", ("mara", "nils", "oda")),
)
"""Everybody but `IMAGE_HOST`, which has no accounts: half of all posts show an image that lies there."""

_COMMUNITIES: Final = (
    f"https://{HOME}/c/pictures",
    f"https://{HOME}/c/shapes",
    "https://metropolis.example/c/everything",
    "https://harbour.example/c/boats",
    "https://meadow.example/c/flowers",
)
_UNKNOWN: Final = (Deed(2, "", 41),)
_HOSTED_ELSEWHERE: Final = 0.5
_ANIMATED: Final = 0.015


@dataclass(frozen=True, slots=True)
class Post:
    """One image that reaches us. Without an `instance` nobody tells where it came from.

    `moment` is the part of its day that had passed. `host` is where the file lies.
    """

    number: int
    motif: Motif
    copy: int
    days_ago: int
    moment: float
    instance: str = ""
    account: str = ""
    community: str = ""
    host: str = ""

    @property
    def actor_id(self) -> str:
        """The author's ActivityPub id."""
        return f"https://{self.instance}/u/{self.account}"

    @property
    def post_url(self) -> str:
        """The post's ActivityPub id."""
        return f"https://{self.instance}/post/{self.number}"

    @property
    def image_url(self) -> str:
        """Where the file lies; only of posts with a `host`."""
        return f"https://{self.host}/pictrs/image/{self.number}"

    def posted_at(self, now: datetime) -> datetime:
        """When it was posted, as seen from `now` (UTC): a moment of its day, and never after `now`."""
        midnight = datetime.combine(now.date() - timedelta(days=self.days_ago), time(), UTC)
        return midnight + self.moment * (min(now, midnight + timedelta(days=1)) - midnight)


def make_week(seed: int = SEED, images: int = IMAGES) -> list[Post]:
    """A week of posts in the order of time: `images` harmless ones or a few less, and the forbidden ones."""
    chance = chance_of(seed, "week")
    posts = [
        *(post for instance in CAST for post in _harmless(instance, round(images * instance.share), chance)),
        *(post for instance in CAST for post in _forbidden(instance, chance)),
        *_without_origin(round(images * (1 - sum(instance.share for instance in CAST))), chance),
    ]
    posts.sort(key=lambda post: (-post.days_ago, post.moment))
    return [_numbered(post, number) for number, post in enumerate(posts, 1)]


def _numbered(post: Post, number: int) -> Post:
    motif = post.motif
    if not motif.forbidden and not motif.number:
        motif = replace(motif, number=number)
    return replace(post, number=number, motif=motif)


def _harmless(instance: Instance, count: int, chance: random.Random) -> Iterator[Post]:
    for _ in range(count):
        yield _posted(instance, chance.choice(instance.accounts), _any_motif(chance), 0, _any_day(chance), chance)


def _forbidden(instance: Instance, chance: random.Random) -> Iterator[Post]:
    for deed in instance.deeds:
        for copy in deed.copies:
            yield _posted(instance, deed.account, Motif(deed.motif, forbidden=True), copy, deed.days_ago, chance)


def _without_origin(count: int, chance: random.Random) -> Iterator[Post]:
    for _ in range(count):
        yield Post(0, _any_motif(chance), 0, _any_day(chance), chance.random())
    for deed in _UNKNOWN:
        for copy in deed.copies:
            yield Post(0, Motif(deed.motif, forbidden=True), copy, deed.days_ago, chance.random())


def _posted(instance: Instance, account: str, motif: Motif, copy: int, days_ago: int, chance: random.Random) -> Post:
    host = IMAGE_HOST if chance.random() < _HOSTED_ELSEWHERE else instance.domain
    community = chance.choice(_COMMUNITIES)
    return Post(0, motif, copy, days_ago, chance.random(), instance.domain, account, community, host)


def _any_motif(chance: random.Random) -> Motif:
    return Motif(0, animated=chance.random() < _ANIMATED)


def _any_day(chance: random.Random) -> int:
    return chance.randint(0, OLDEST)


def forbidden_motifs() -> list[Motif]:
    """Every motif that the demo's list of forbidden pictures has, in order."""
    deeds = [*_UNKNOWN, *(deed for instance in CAST for deed in instance.deeds)]
    return [Motif(number, forbidden=True) for number in sorted({deed.motif for deed in deeds})]


def is_waiting(post: Post) -> bool:
    """Whether the demo's reviewers leave this forbidden picture to whoever tries the queue."""
    return post.motif.forbidden and (
        not post.instance or (post.instance == "starfall.example" and post.days_ago == 1) or post.copy >= 4
    )


def expected_levels(posts: Sequence[Post], today: date, at: date) -> dict[str, Level]:
    """What the audit's own statistics come to at the end of day `at`, if the pipeline loses nothing of a week that led
    up to `today`.

    From the plan alone: the posts' days, and about as many false positives as the policy makes.
    """
    stratum = Stratum("demo", "demo")
    told = [post for post in posts if post.instance]
    counts: dict[tuple[str, date], int] = {}
    for post in told:
        day = today - timedelta(days=post.days_ago)
        if not post.motif.forbidden:
            counts[post.instance, day] = counts.get((post.instance, day), 0) + 1
    rows = [
        Exposure(instance, stratum, day, day, count, round(count * FALSE_POSITIVES))
        for (instance, day), count in sorted(counts.items())
    ]
    incidents = [
        Incident(
            incident_id=str(post.number),
            instance=post.instance,
            actor=post.actor_id,
            day=today - timedelta(days=post.days_ago),
            cluster=str(post.motif.number),
            confirmed=Confirmation.REVIEWERS,
        )
        for post in told
        if post.motif.forbidden and not is_waiting(post)
    ]
    dismissed = round(FALSE_POSITIVES * sum(counts.values()))
    evidence = Evidence(incidents=incidents, reviews=[Reviews(stratum, 0, dismissed)], local_domains=frozenset({HOME}))
    assessment = assess(ExposureTable.from_rows(rows), evidence, at)
    return {each.instance: each.level for each in assessment}


def limits_of(posts: Sequence[Post], today: date, at: date) -> list[str]:
    """Why nobody can be recommended against at the end of day `at`, however bad they are; plain sentences."""
    said = []
    begun = (at - quarter_start(at)).days
    if today - timedelta(days=OLDEST) < quarter_start(at):
        said.append(
            f"Evidence begins anew with each quarter, and this one is {begun} days old: a recommendation asks for"
            f" {OLDEST} days between the first incident and the last. Nobody can be recommended against today."
        )
    few = sum(post.instance == "starfall.example" and not post.motif.forbidden for post in posts)
    if few < DEFAULT_RULES.least_media:
        said.append(
            f"A recommendation asks for {DEFAULT_RULES.least_media} images of an instance, and starfall.example sends"
            f" {few} in a week of this size; {IMAGES:,} images in all are enough."
        )
    return said
