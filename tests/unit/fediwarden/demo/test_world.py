"""The demo's week: the same again, in order, and bad enough for the statistics on those days when it can be."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from federation_audit.statistics.levels import Level
from fediwarden.demo.world import (
    CAST,
    HOME,
    IMAGES,
    OLDEST,
    expected_levels,
    forbidden_motifs,
    is_waiting,
    limits_of,
    make_week,
)

MIDST = date(2026, 11, 14)
WEEK = make_week()


def test_the_same_week_again_and_another_for_another_seed():
    assert make_week() == WEEK
    assert make_week(seed=1) != WEEK


@pytest.mark.parametrize("images", [150, 700, IMAGES])
def test_as_many_images_as_were_asked_for_and_always_the_same_deeds(images):
    week = make_week(images=images)
    assert abs(sum(not post.motif.forbidden for post in week) - images) <= len(CAST)
    deeds = Counter((post.instance, post.motif, post.copy) for post in week if post.motif.forbidden)
    assert deeds == Counter((post.instance, post.motif, post.copy) for post in WEEK if post.motif.forbidden)
    assert [post.number for post in week] == list(range(1, len(week) + 1))


def test_no_two_posts_show_the_same_file():
    assert len({(post.motif, post.copy) for post in WEEK}) == len(WEEK)


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_posts_come_in_the_order_of_time_and_never_from_the_future(hour):
    now = datetime(2026, 11, 14, hour, 1, tzinfo=UTC)
    times = [post.posted_at(now) for post in WEEK]
    assert times == sorted(times)
    assert times[-1] <= now
    assert {(now.date() - at.date()).days for at in times} == set(range(OLDEST + 1))


def test_everybody_lives_below_example_and_some_images_come_from_nobody():
    assert all(instance.domain.endswith(".example") for instance in CAST)
    assert {post.instance for post in WEEK} == {instance.domain for instance in CAST} | {""}
    assert abs(1 - sum(instance.share for instance in CAST)) < 0.1


def test_every_forbidden_post_shows_a_motif_of_the_list():
    assert {post.motif for post in WEEK if post.motif.forbidden} == set(forbidden_motifs())


def test_the_levels_in_the_midst_of_a_quarter():
    levels = expected_levels(WEEK, MIDST, MIDST)
    assert levels.pop("starfall.example") is Level.RECOMMEND
    assert levels.pop("twilight.example") is Level.RESTRICT
    assert set(levels.values()) == {Level.INSUFFICIENT}
    assert HOME not in levels
    assert limits_of(WEEK, MIDST, MIDST) == []


@pytest.mark.parametrize("day", [date(2026, 10, 1) + timedelta(days=day) for day in range(12)])
def test_what_cannot_be_reached_early_in_a_quarter_is_said(day):
    recommended = expected_levels(WEEK, day, day)["starfall.example"] is Level.RECOMMEND
    assert bool(limits_of(WEEK, day, day)) is not recommended
    assert recommended is (day.day > OLDEST)


@pytest.mark.parametrize("images", [150, 1_000, 1_600, 5_000])
def test_what_a_small_week_cannot_show_is_said(images):
    week = make_week(images=images)
    recommended = expected_levels(week, MIDST, MIDST)["starfall.example"] is Level.RECOMMEND
    assert bool(limits_of(week, MIDST, MIDST)) is not recommended
    assert recommended is (images >= 1_600)


def test_seen_in_the_next_quarter_nothing_of_it_counts():
    levels = expected_levels(WEEK, date(2026, 9, 30), date(2026, 10, 2))
    assert set(levels.values()) == {Level.INSUFFICIENT}
    assert limits_of(WEEK, date(2026, 9, 30), date(2026, 10, 2))


def test_some_of_the_bad_is_left_for_whoever_tries_the_queue():
    waiting = [post for post in WEEK if is_waiting(post)]
    assert 3 <= len(waiting) <= 12
    assert any(not post.instance for post in waiting)
