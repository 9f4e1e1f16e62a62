"""Which tier a rescan takes and why, what of its span is gone, and what it refuses."""

from pathlib import Path

import pytest

from fediwarden.rescan.errors import RescanInvalid, RescanNotFinished, RescanStateWrong
from fediwarden.rescan.eyes import Eyes
from fediwarden.rescan.jobs import check_change, new_rescan_id
from fediwarden.rescan.planning import (
    Asked,
    Kept,
    by_frames,
    check_asked,
    choose_tier,
    find_gone,
    find_lists,
    make_spans,
)
from fediwarden.rescan.working import cut_batches
from fediwarden.settings import Settings
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.store import ListStore, Suspension
from schemas.broker import Partition, Received, Window
from schemas.codec import encode
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    Rejudged,
    RescanJudged,
    RescanOnly,
    RescanOrdered,
    RescanState,
    RescanTier,
    RuleFired,
    ScannerAnnounced,
)
from schemas.topics import IMAGES_ARCHIVE, RECORD_MAX_BYTES, SCANNERS, VERDICTS

PLAIN = """
[policy]
name = "plain"
[[rule]]
name = "bare"
says = "Nude."
decision = "reject"
when = { score = "open-nsfw/nsfw", at_least = 0.9 }
"""
SNOW = """
[policy]
name = "snow"
models = ["clip"]
[[concept]]
name = "snow"
prompts = ["TEXT"]
[[rule]]
name = "snowy"
says = "Snow."
decision = "reject"
when = { score = "clip/snow", at_least = 0.5 }
"""
CLIP = Kept(frozenset({"clip/snow"}), {"clip": "one"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "snow.toml").write_text(SNOW)
    return Settings(data_dir=tmp_path, scanner={"policy": tmp_path / "snow.toml"})  # type: ignore[arg-type]


NSFW = {"open-nsfw": "two"}


def eyes(*scanners: dict[str, str], shadow: dict[str, str] | None = None) -> Eyes:
    """Scanners that run these models, by name and id, and a shadow."""
    found = Eyes()
    for number, models in enumerate((*scanners, *([] if shadow is None else [shadow]))):
        said = ScannerAnnounced(
            scanner=f"s{number}",
            group="g",
            models=models,
            policies={} if models is shadow else {EVERY_TENANT: "p"},
            device="cpu",
            announced_at=1,
        )
        found.observe(Received(SCANNERS, 0, number, 1, said.scanner.encode(), said, None, 1))
    return found


def chosen(settings: Settings, text: str, kept: Kept) -> RescanTier:
    return choose_tier(settings, {EVERY_TENANT: text}, kept, eyes(NSFW)).tier


def test_the_cheapest_tier_that_gives_the_true_answer(settings: Settings) -> None:
    nude = Kept(frozenset({"open-nsfw/nsfw", "open-nsfw/sfw"}), {"open-nsfw": "two"})
    assert chosen(settings, PLAIN, nude) is RescanTier.SCORES
    assert chosen(settings, SNOW, CLIP) is RescanTier.SCORES, "the texts are those of the policy in force"
    assert chosen(settings, SNOW.replace("TEXT", "sleet"), CLIP) is RescanTier.VECTORS, "the texts have changed"
    new = choose_tier(settings, {EVERY_TENANT: SNOW}, Kept(frozenset(), {"clip": "one"}), eyes())
    assert (new.tier, new.models) == (RescanTier.VECTORS, {"clip": "one"})
    assert "clip/snow" in new.why
    unseen = choose_tier(settings, {EVERY_TENANT: PLAIN}, CLIP, eyes(NSFW))
    assert (unseen.tier, unseen.models) == (RescanTier.FRAMES, {"open-nsfw": "two"})
    with pytest.raises(RescanInvalid, match="open-nsfw has to see the frames, and no scanner runs it; add open-nsfw"):
        choose_tier(settings, {EVERY_TENANT: PLAIN}, CLIP, eyes())


def test_frames_are_seen_by_scanners_with_all_that_they_run(settings: Settings) -> None:
    both = {"open-nsfw": "two", "safety-s": "one"}
    named = {"registry": None, "field": "--model"}
    assert eyes(both, NSFW, both).models_for({"open-nsfw"}, **named) == both, "what most of them run"
    assert eyes(NSFW, NSFW, both).models_for({"safety-s"}, **named) == both, "who runs it"
    with pytest.raises(RescanInvalid, match="safety-s has to see the frames, and no scanner runs it"):
        eyes(NSFW, shadow=both).models_for({"safety-s"}, **named)
    with pytest.raises(RescanInvalid, match=r"--model: there is no model 'x'; the models are: .*open-nsfw"):
        eyes(both).models_for({"x"}, **named)
    by = by_frames(settings, {EVERY_TENANT: PLAIN}, {"safety-s"}, eyes(both), "--model", "why")
    assert (by.tier, by.models) == (RescanTier.FRAMES, both)
    with pytest.raises(RescanInvalid, match=r"asks for open-nsfw as well, and the scanners .* run safety-s alone"):
        by_frames(settings, {EVERY_TENANT: PLAIN}, {"safety-s"}, eyes({"safety-s": "one"}), "--model", "why")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Asked(since_ms=100), "--since"),
        (Asked(since_ms=1, policy=Path("x"), lists=True), "--lists"),
        (Asked(since_ms=1, only=(RescanOnly.UNJUDGED,)), "--only"),
        (Asked(since_ms=1, tenants=("nobody",)), "--tenant"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(settings: Settings, asked: Asked, field: str) -> None:
    known = settings.model_copy(update={"tenants": settings.tenants})
    with pytest.raises(RescanInvalid) as refused:
        check_asked(known, asked, 100)
    assert refused.value.field == field
    assert refused.value.remedy


def test_lists_that_do_not_match_are_no_part_of_it(settings: Settings) -> None:
    with pytest.raises(RescanInvalid, match=r"--lists: no list in .* is in force"):
        find_lists(settings)
    assert settings.gateway.lists.folder is not None
    store = ListStore(settings.gateway.lists.folder)
    hashes = HashSet.of({HashKind.PDQ: [b"\1" * 32]})
    stored = store.save(ListDefinition(name="good", source=""), hashes)
    store.save(ListDefinition(name="over", source="", expires_at=1), hashes)
    store.save(ListDefinition(name="wild", source=""), hashes)
    store.suspend("wild", Suspension(version="", matched=1, images=1, at=1, by="t"))
    assert find_lists(settings) == {"good": stored.version}


def test_what_is_gone_is_told_by_the_oldest_that_is_left() -> None:
    archive = {Partition(IMAGES_ARCHIVE, 0): Window(7, 9, 7, 600), Partition(IMAGES_ARCHIVE, 1): Window(4, 4, 4, None)}
    verdicts = {Partition(VERDICTS, 0): Window(10, 20, 0, 50), Partition(VERDICTS, 1): Window(3, 3, 0, None)}
    gone = find_gone(archive, verdicts, 100, 1100)
    assert gone is not None
    assert (gone.share, gone.until_ms, gone.images) == (0.5, 600, 0)
    assert "50% of the span asked for is gone" in str(gone)
    assert "fediwarden sweep" in gone.remedy
    assert find_gone(verdicts, verdicts, 100, 1100) is None
    assert find_gone(archive, verdicts, 700, 1100) is None
    assert [(each.topic, each.partition, each.begin, each.end) for each in make_spans(verdicts)] == [
        ("verdicts", 0, 10, 20)
    ]


def job(state: RescanState) -> RescanOrdered:
    return RescanOrdered(
        rescan=new_rescan_id(1_795_885_000_000),
        tier=RescanTier.SCORES,
        state=state,
        since=0,
        until=1,
        spans=(),
        ordered_at=1,
        changed_at=1,
    )


def test_states_go_one_way() -> None:
    check_change(job(RescanState.CANCELLED), RescanState.RUNNING)
    check_change(job(RescanState.FINISHED), RescanState.APPLYING)
    with pytest.raises(RescanNotFinished, match="rescan resume"):
        check_change(job(RescanState.RUNNING), RescanState.APPLYING)
    with pytest.raises(RescanStateWrong, match="only one that is running can become cancelled"):
        check_change(job(RescanState.APPLIED), RescanState.CANCELLED)


def test_records_of_what_was_judged_fit_whatever_is_said_of_the_images() -> None:
    rules = tuple(RuleFired(name=f"a rule with a name {at}", decision=Decision.REVIEW, frame=0) for at in range(20))
    scores = {f"a-model/a-label-of-its-own-{at}": 0.1234 for at in range(40)}
    images = [
        Rejudged(
            offset=at,
            scan_id=f"{at:064}",
            tenant="t" * 64,
            sha256=bytes(32),
            before=Decision.ACCEPT,
            after=Decision.REVIEW,
            rules=rules,
            scores=scores,
            policy="0" * 16,
        )
        for at in range(300)
    ]
    batches = list(cut_batches(images))
    assert [each for batch in batches for each in batch] == images
    for batch in batches:
        record = RescanJudged(rescan="r", topic="verdicts", partition=0, begin=0, end=300, images=batch, judged_at=1)
        assert len(encode(record)) < RECORD_MAX_BYTES
    assert [
        len(each) for each in cut_batches(image.model_copy(update={"rules": (), "scores": {}}) for image in images * 3)
    ] == [500, 400]
    assert list(cut_batches([])) == [()]
