"""What `fediwarden models promote` decides before and after it publishes."""

from pathlib import Path

import pytest

from fediwarden.promotion.change import Change, change_models
from fediwarden.promotion.checking import check_promotion
from fediwarden.promotion.errors import PromotionInvalid, PromotionRefused
from fediwarden.promotion.evidence import Evidence, is_verdict_of
from fediwarden.promotion.rollout import Rollout
from fediwarden.settings import load_settings
from fediwarden.shadow import Comparison, Tally
from scanner.models.registry import Registry, UnknownModel, load_registry
from schemas.broker import Received
from schemas.messages import EVERY_TENANT, Decision, Message, ScannerAnnounced, Stage
from schemas.topics import VERDICTS, VERDICTS_SHADOW, TopicSpec
from tests.models import models_dir
from tests.unit.schemas.samples import verdict

REGISTRY = load_registry()


def with_checkpoints(*names: str) -> Registry:
    clip = REGISTRY.entry("clip")
    return Registry(model=(*REGISTRY.model, *(clip.model_copy(update={"name": name}) for name in names)))


def test_a_model_comes_in_the_place_of_the_one_that_gives_the_same():
    registry = with_checkpoints("siglip")
    assert change_models(["safety-s", "clip"], "siglip", registry) == Change(
        ("safety-s", "siglip"), ("siglip",), ("clip",)
    )
    assert change_models(["safety-s", "siglip"], "clip", registry).models == ("safety-s", "clip")


def test_a_model_like_no_other_or_like_two_is_added():
    registry = with_checkpoints("siglip", "siglip2")
    assert change_models(["safety-s"], "open-nsfw", registry) == Change(("safety-s", "open-nsfw"), ("open-nsfw",), ())
    assert change_models(["clip", "siglip"], "siglip2", registry).models == ("clip", "siglip", "siglip2")


def test_beside_takes_the_place_of_none():
    registry = with_checkpoints("siglip")
    assert change_models(["clip"], "siglip", registry, beside=True) == Change(("clip", "siglip"), ("siglip",), ())
    with pytest.raises(PromotionInvalid, match="one of them"):
        change_models(["clip"], "siglip", registry, replaces="clip", beside=True)


def test_what_is_named_is_replaced_and_goes_where_the_new_one_is_there_already():
    assert change_models(["safety-s", "open-nsfw"], "clip", REGISTRY, replaces="safety-s") == Change(
        ("clip", "open-nsfw"), ("clip",), ("safety-s",)
    )
    assert change_models(["safety-s", "clip"], "clip", REGISTRY, replaces="safety-s") == Change(
        ("clip",), (), ("safety-s",)
    )


@pytest.mark.parametrize(
    ("name", "replaces", "says"),
    [
        ("safety-s", "", "in force already"),
        ("clip", "open-nsfw", "not among the models in force"),
        ("safety-s", "safety-s", "its own place"),
    ],
)
def test_what_would_change_nothing_is_refused(name, replaces, says):
    with pytest.raises(PromotionInvalid, match=says):
        change_models(["safety-s"], name, REGISTRY, replaces=replaces)


def test_an_unknown_model_is_named_with_those_that_there_are():
    with pytest.raises(UnknownModel, match="the registry has safety-s"):
        change_models(["safety-s"], "safety-xl", REGISTRY)


def test_a_policy_that_does_not_fit_is_refused_by_its_rule(tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[policy]\nname = "p"\n[[rule]]\nname = "bare"\nsays = "It is."\ndecision = "reject"\n'
        'when = { score = "open-nsfw/nsfw", at_least = 0.5 }\n'
    )
    settings = load_settings({"scanner": {"policy": policy, "models_dir": models_dir()}})
    check_promotion(settings, ["open-nsfw"])
    with pytest.raises(PromotionRefused, match=r"policy\.toml, line 7.*rule 'bare'.*open-nsfw/nsfw.*--replaces"):
        check_promotion(settings, ["safety-s"])


def record(message: Message, topic: TopicSpec = VERDICTS) -> Received:
    return Received(topic, 0, 0, 0, b"", message, None, 1)


def test_a_shadow_counts_by_the_id_of_the_model_that_is_to_be_promoted():
    tally = Tally(model=("clip", "new"))
    for scan_id, model_id in (("a", "new"), ("b", "old"), ("c", "old")):
        said = verdict(scan_id=scan_id, models={"clip": model_id}, decision=Decision.ACCEPT, judged_at=2)
        tally.take_shadow(record(said, VERDICTS_SHADOW))
        tally.take_live(record(verdict(scan_id=scan_id, decision=Decision.REJECT)))
    found = tally.comparison()
    assert (found.compared, found.changed) == (1, 1)
    assert sum(found.others.values()) == 2


def test_who_has_judged_live_needs_no_shadow():
    assert is_verdict_of(record(verdict(models={"clip": "x"}, stage=Stage.BACKLOG)), "clip", "x")
    assert not is_verdict_of(record(verdict(models={"clip": "y"})), "clip", "x")
    assert not is_verdict_of(record(verdict(models={"clip": "x"}, stage=Stage.RESCAN)), "clip", "x")
    assert Evidence("clip", "x", Comparison(), has_judged=True).suffices
    assert not Evidence("clip", "x", Comparison(), has_judged=False).suffices


def says(scanner: str, *models: str, changing: bool = False, leaving: bool = False) -> ScannerAnnounced:
    return ScannerAnnounced(
        scanner=scanner,
        group="g",
        models=dict.fromkeys(models, "id"),
        policies={EVERY_TENANT: "p"},
        device="cpu",
        changing=changing,
        leaving=leaving,
        announced_at=0,
    )


def test_a_rollout_says_what_each_scanner_does_and_who_is_missing():
    rollout = Rollout("g", ["new"])
    assert rollout.is_nobody_there(0)
    for each in (says("a", "old", changing=True), says("b", "old"), says("c", "new")):
        rollout.observe(each, 0)
    assert rollout.steps(0) == {
        "a": "waits for its turn, and judges with old",
        "b": "judges with old",
        "c": "judges with new",
    }
    assert [each.split()[0] for each in rollout.missing(0)] == ["a", "b"]
    rollout.observe(says("a", "old", changing=True, leaving=True), 1)
    assert rollout.missing(1) == ["a has left, to come back with new", "b judges with old"]
    rollout.observe(says("d", "new"), 2)
    rollout.observe(says("b", "old", leaving=True), 2)
    assert rollout.missing(2) == []
    assert not rollout.is_nobody_there(2)
