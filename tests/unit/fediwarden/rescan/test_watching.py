"""When something in force has changed, and is to be judged again for."""

from dataclasses import replace

import pytest

from fediwarden.rescan.watching import KINDS, Announced, InForce, Watch, differ
from schemas.messages import EVERY_TENANT
from tests.unit.schemas.samples import announced

BEFORE = InForce({"safety-s": "m1"}, {EVERY_TENANT: "p1"}, {"known": "v1"})
POLICY = replace(BEFORE, policies={EVERY_TENANT: "p2"})
MODEL = replace(BEFORE, models={"safety-m": "m2"})
LISTS = replace(BEFORE, lists={"known": "v2"})


def stood(watch: Watch, seen: InForce | None, at: float) -> str | None:
    assert watch.look(seen, at) is None
    return watch.look(seen, at + 60)


@pytest.mark.parametrize(("now", "kind"), [(BEFORE, None), (POLICY, "policy"), (MODEL, "model"), (LISTS, "lists")])
def test_what_has_changed_since_images_were_judged_is_due_once(now, kind):
    watch = Watch(KINDS, BEFORE)
    assert stood(watch, now, 0) == kind
    if kind is not None:
        watch.note_done(kind, now)
    assert watch.look(now, 1000) is None


def test_what_the_settings_do_not_name_is_not_due():
    assert stood(Watch(["lists"], BEFORE), POLICY, 0) is None
    assert stood(Watch([], BEFORE), LISTS, 0) is None


def test_a_change_counts_when_it_has_stood_for_a_minute():
    watch = Watch(KINDS, BEFORE)
    assert watch.look(POLICY, 0) is None
    assert watch.look(MODEL, 59) is None
    assert watch.look(POLICY, 61) is None
    assert watch.look(None, 90) is None
    assert watch.look(POLICY, 122) is None
    assert watch.look(POLICY, 182) == "policy"


def test_of_several_changes_the_cheapest_comes_first_and_the_others_after_it():
    watch = Watch(KINDS, BEFORE)
    everything = InForce(MODEL.models, POLICY.policies, LISTS.lists)
    due = []
    at = 0.0
    watch.look(everything, at)
    while kind := watch.look(everything, at := at + 60):
        due.append(kind)
        watch.note_done(kind, everything)
    assert due == ["lists", "policy", "model"]


def test_what_nothing_is_known_of_is_taken_as_it_is_first():
    watch = Watch(KINDS, InForce())
    assert watch.look(BEFORE, 0) is None  # and at once: images are judged by it, though it stands for a moment only
    assert stood(watch, POLICY, 10) == "policy"


def test_a_model_that_goes_and_a_list_that_expires_are_nothing_to_look_again_for():
    both = replace(BEFORE, models={"safety-s": "m1", "open-nsfw": "m2"})
    watch = Watch(KINDS, both)
    assert stood(watch, replace(BEFORE, lists={}), 0) is None
    assert watch.new_models(both) == ["open-nsfw"]  # and if it comes back, it has not seen what came in between


def test_policies_are_compared_by_the_tenants_that_are_known():
    assert not differ({EVERY_TENANT: "p"}, {"a": "p"})
    assert differ({EVERY_TENANT: "p", "a": "q"}, {"a": "p"})
    assert differ({EVERY_TENANT: "p"}, {EVERY_TENANT: "p", "a": "q"})
    assert not differ({"b": "p"}, {"a": "q"})


def test_scanners_that_differ_or_are_not_there_say_nothing():
    group = announced().group
    seen = Announced(group)
    assert seen.in_force(0) is None
    seen.observe(announced(scanner="a"), 0)
    found = seen.in_force(0)
    assert found is not None and found.policies == announced().policies
    seen.observe(announced(scanner="b", models={"other": "x"}), 0)
    assert seen.in_force(0) is None
    seen.observe(announced(scanner="b", models={"other": "x"}, leaving=True), 1)
    assert seen.in_force(1) == found
    seen.observe(announced(scanner="c", models={"other": "x"}, group="another"), 1)
    assert seen.in_force(1) == found
    assert seen.in_force(60) is None
