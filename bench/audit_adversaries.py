"""Those who would have the audit accuse the innocent, and what could mislead it without anybody's intent.

Each takes a world and a generator, and gives a fediverse and the instance that may not be recommended.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.audit_fediverse import Fediverse, Generator, World, day_of, invent
from federation_audit.statistics.events import Remediation

Adversary = Callable[[World, Generator], tuple[Fediverse, str]]
FLOODS_AT = 9.0  # weeks


def _with_victim(
    world: World, rng: Generator, media_a_week: float, weeks: range | None = None
) -> tuple[Fediverse, str]:
    fediverse, name = invent(world, rng), "victim.example"
    media = rng.poisson(media_a_week, world.weeks)
    if weeks is not None:
        media = np.where(np.isin(np.arange(world.weeks), weeks), media, 0)
    fediverse.add_instance(name, media, rng.binomial(media, world.false_rate))
    return fediverse, name


def flood_through_one_account(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """One account floods through a large innocent instance: 400 different pictures in 30 days."""
    fediverse, name = _with_victim(world, rng, 5_000.0)
    for _ in range(400):
        fediverse.add_incident(name, "flooder", day_of(FLOODS_AT + rng.random() * 30 / 7), delay=2)
    return fediverse, name


def flood_through_small_instance(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """The same through a small innocent instance (40 images a week), by one account in 30 days."""
    fediverse, name = _with_victim(world, rng, 40.0)
    for _ in range(60):
        fediverse.add_incident(name, "flooder", day_of(FLOODS_AT + rng.random() * 30 / 7), delay=2)
    return fediverse, name


def share_an_image_host(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """An image host that everybody uses: 600 bad pictures lie there, posted from everywhere or nobody knows whence."""
    fediverse = invent(world, rng)
    names = [*fediverse.media, None]
    for number in range(600):
        author = names[int(rng.integers(len(names)))] if number % 2 else None
        day = day_of(rng.random() * (world.weeks - 1))
        if author is None or rng.random() < 0.1:  # few of those who link there have a known author with bad intent
            fediverse.add_incident(author, f"i{number}", day, host="images.example")
    return fediverse, "images.example"


def raid_with_new_accounts(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """A raid of 200 new accounts on an innocent instance (400 images a week): three pictures each in two days."""
    fediverse, name = _with_victim(world, rng, 400.0)
    for account in range(200):
        for _ in range(3):
            fediverse.add_incident(name, f"raider{account}", day_of(FLOODS_AT + rng.random() * 2 / 7), delay=2)
    return fediverse, name


def begin_with_thirty_images(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """A brand-new instance with 30 images in its first week, five of them flagged and one wrongly confirmed."""
    fediverse, name = _with_victim(world, rng, 0.0)
    fediverse.media[name][10] = 30
    fediverse.flagged[name][10] = 4
    fediverse.add_incident(name, "newcomer", day_of(10.5), delay=2)
    return fediverse, name


def clean_up(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """An instance that was bad for six weeks, cleaned up, and is looked at ever since (not before)."""
    fediverse, name = _with_victim(world, rng, 500.0)
    for number in range(60):
        fediverse.add_incident(name, f"old{number % 25}", day_of(rng.random() * 6), delay=2)
    # In a fediverse's looks the time before the clean-up is rightly named: bad until then, so it begins with it
    fediverse.remediations.append(Remediation("r1", name, day_of(6.0)))
    for at, incident in enumerate(fediverse.incidents):
        if incident.instance == name:
            fediverse.confirmed_on[at] = day_of(7.0)
    return fediverse, name


def raid_for_ten_days(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """NOT TOLD APART: a raid of ten days, new accounts and pictures every day, on a small instance (40 a week)."""
    fediverse, name = _with_victim(world, rng, 40.0)
    for number in range(60):
        day = day_of(FLOODS_AT + rng.random() * 10 / 7)
        fediverse.add_incident(name, f"raider{number}", day, delay=2)
    return fediverse, name


def drown_in_harmless_images(world: World, rng: Generator) -> tuple[Fediverse, str]:
    """NOT FOUND: a bad instance (1 % of 500 a week) where one account posts 20,000 harmless images a week beside."""
    fediverse, _ = invent(replace(world, bad=0), rng), ""
    name = "victim.example"
    media = rng.poisson(20_500.0, world.weeks)
    fediverse.add_instance(name, media, rng.binomial(media, world.false_rate))
    fediverse.bad.add(name)
    for number in range(130):
        fediverse.add_incident(name, f"bad{number // 2}", day_of(rng.random() * world.weeks), delay=2)
    return fediverse, name


INNOCENT: tuple[Adversary, ...] = (
    flood_through_one_account,
    flood_through_small_instance,
    share_an_image_host,
    raid_with_new_accounts,
    begin_with_thirty_images,
    clean_up,
)
ADVERSARIES: tuple[Adversary, ...] = (*INNOCENT, raid_for_ten_days, drown_in_harmless_images)
