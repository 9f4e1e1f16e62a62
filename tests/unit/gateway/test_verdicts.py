import asyncio
import subprocess
import sys
from dataclasses import replace

import orjson
import pytest

from gateway.verdicts import ANNOUNCED_WITHIN_S, Judgement, Verdicts
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.codec import SchemaUnknown
from schemas.messages import EVERY_TENANT, Decision, Message, RuleFired, ScannerAnnounced, Stage, Verdict
from schemas.topics import SCANNERS, VERDICTS

SHA = b"\x01" * 32
MODELS = {"safety-s": "aaaa", "open-nsfw": "bbbb"}


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def make(clock: Clock | None = None, *, known: int = 100, recent: int = 100) -> Verdicts:
    return Verdicts(known_entries=known, recent_entries=recent, monotonic=clock or Clock())


def received(message: Message | None, *, fault: SchemaUnknown | None = None) -> Received:
    topic = VERDICTS if isinstance(message, Verdict) else SCANNERS
    return Received(topic, 0, 0, now_ms(), b"key", message, fault, 100)


def verdict(
    scan_id: str = "scan",
    *,
    sha256: bytes = SHA,
    decision: Decision = Decision.ACCEPT,
    models: dict[str, str] = MODELS,
    policy: str = "p1",
    judged_at: int = 1,
    rules: tuple[RuleFired, ...] = (),
) -> Received:
    return received(
        Verdict(
            scan_id=scan_id,
            tenant="default",
            sha256=sha256,
            decision=decision,
            rules=rules,
            scores={"safety-s/NSFW": 0.123456789},
            models=models,
            policy=policy,
            stage=Stage.LIVE,
            scanner="s",
            topic="images",
            partition=0,
            offset=0,
            received_at=0,
            judged_at=judged_at,
        )
    )


def announcement(
    scanner: str = "s",
    *,
    policies: dict[str, str] | None = None,
    models: dict[str, str] = MODELS,
    age_s: float = 0,
    healthy: bool = True,
    leaving: bool = False,
    changing: bool = False,
) -> Received:
    return received(
        ScannerAnnounced(
            scanner=scanner,
            group="g",
            models=models,
            policies=policies or {EVERY_TENANT: "p1"},
            device="cpu",
            healthy=healthy,
            leaving=leaving,
            changing=changing,
            announced_at=now_ms() - int(age_s * 1000),
        )
    )


def test_a_verdict_is_known_while_a_scanner_announces_the_same_models_and_policy() -> None:
    verdicts = make()
    verdicts.observe(verdict())
    assert verdicts.known("default", SHA) is None
    verdicts.observe(announcement())
    known = verdicts.known("default", SHA)
    assert known is not None
    assert known.decision is Decision.ACCEPT
    assert orjson.loads(known.scores) == {"safety-s/NSFW": 0.123457}


@pytest.mark.parametrize(
    ("models", "policy"),
    [({"safety-s": "other", "open-nsfw": "bbbb"}, "p1"), ({"safety-s": "aaaa"}, "p1"), (MODELS, "p2")],
)
def test_a_verdict_of_another_model_or_policy_is_not_known(models: dict[str, str], policy: str) -> None:
    verdicts = make()
    verdicts.observe(announcement())
    verdicts.observe(verdict(models=models, policy=policy))
    assert verdicts.known("default", SHA) is None


def test_the_order_in_which_models_are_named_does_not_matter() -> None:
    verdicts = make()
    verdicts.observe(announcement(models=dict(reversed(MODELS.items()))))
    verdicts.observe(verdict())
    assert verdicts.known("default", SHA) is not None


def test_a_tenants_own_policy_goes_before_everyones() -> None:
    verdicts = make()
    verdicts.observe(announcement(policies={EVERY_TENANT: "p1", "strict": "p2"}))
    verdicts.observe(verdict(policy="p1"))
    assert verdicts.known("default", SHA) is not None
    assert verdicts.known("strict", SHA) is None
    verdicts.observe(verdict(policy="p2", decision=Decision.REJECT))
    found = verdicts.known("strict", SHA)
    assert found is not None and found.decision is Decision.REJECT


def test_while_two_scanners_judge_differently_the_latest_verdict_counts() -> None:
    verdicts = make()
    verdicts.observe(announcement("old", policies={EVERY_TENANT: "p1"}))
    verdicts.observe(announcement("new", policies={EVERY_TENANT: "p2"}))
    verdicts.observe(verdict(policy="p2", judged_at=20, decision=Decision.REJECT))
    verdicts.observe(verdict(policy="p1", judged_at=10))
    found = verdicts.known("default", SHA)
    assert found is not None and found.decision is Decision.REJECT


def test_old_verdicts_count_while_a_scanner_with_the_old_models_is_left_and_not_after() -> None:
    """Models are promoted: scanners leave one after another, and come back under other names."""
    new = {"safety-m": "cccc", "open-nsfw": "bbbb"}
    other = b"\x02" * 32
    verdicts = make()
    for name in ("one", "two"):
        verdicts.observe(announcement(name, changing=True))
    verdicts.observe(verdict("a", judged_at=1))
    verdicts.observe(verdict("b", sha256=other, judged_at=1))
    verdicts.observe(announcement("one", changing=True, leaving=True))
    verdicts.observe(announcement("one-again", models=new))
    assert verdicts.known("default", SHA) is not None
    verdicts.observe(verdict("c", models=new, judged_at=2, decision=Decision.REJECT))
    found = verdicts.known("default", SHA)
    assert found is not None and found.decision is Decision.REJECT

    verdicts.observe(announcement("two", changing=True, leaving=True))
    assert verdicts.known("default", other) is None
    verdicts.observe(announcement("two-again", models=new))
    assert verdicts.known("default", other) is None
    found = verdicts.known("default", SHA)
    assert found is not None and found.decision is Decision.REJECT

    verdicts.observe(announcement("back", models=MODELS))  # rolled back: what the old models said holds again
    assert verdicts.known("default", other) is not None


def test_old_verdicts_are_forgotten_when_the_last_scanner_with_the_old_models_dies() -> None:
    clock = Clock()
    verdicts = make(clock)
    verdicts.observe(announcement("old"))
    verdicts.observe(verdict())
    clock.at += ANNOUNCED_WITHIN_S
    verdicts.observe(announcement("new", models={"safety-m": "cccc"}))
    assert verdicts.known("default", SHA) is None


def test_a_scanner_that_is_silent_too_long_no_longer_counts() -> None:
    clock = Clock()
    verdicts = make(clock)
    verdicts.observe(announcement())
    verdicts.observe(verdict())
    clock.at += ANNOUNCED_WITHIN_S - 1
    assert verdicts.known("default", SHA) is not None
    clock.at += 1
    assert verdicts.known("default", SHA) is None
    assert verdicts.scanner_count() == 0


def test_an_old_announcement_read_at_start_counts_for_what_is_left_of_it() -> None:
    clock = Clock()
    verdicts = make(clock)
    verdicts.observe(announcement("recent", age_s=20))
    verdicts.observe(announcement("gone", age_s=ANNOUNCED_WITHIN_S + 1))
    assert verdicts.scanner_count() == 1
    clock.at += 11
    assert verdicts.scanner_count() == 0


def test_a_scanner_whose_clock_is_ahead_counts_no_longer_than_others() -> None:
    clock = Clock()
    verdicts = make(clock)
    verdicts.observe(announcement(age_s=-3600))
    clock.at += ANNOUNCED_WITHIN_S
    assert verdicts.scanner_count() == 0


@pytest.mark.parametrize("end", [{"leaving": True}, {"healthy": False}])
def test_a_scanner_that_leaves_or_is_ill_no_longer_counts(end: dict[str, bool]) -> None:
    verdicts = make()
    verdicts.observe(announcement())
    verdicts.observe(announcement(**end))  # type: ignore[arg-type]
    assert verdicts.scanner_count() == 0


def test_only_the_most_recently_used_verdicts_are_kept() -> None:
    verdicts = make(known=2, recent=2)
    verdicts.observe(announcement())
    hashes = [bytes([n]) * 32 for n in range(3)]
    verdicts.observe(verdict("a", sha256=hashes[0]))
    verdicts.observe(verdict("b", sha256=hashes[1]))
    assert verdicts.known("default", hashes[0]) is not None
    verdicts.observe(verdict("c", sha256=hashes[2]))
    assert [verdicts.known("default", each) is not None for each in hashes] == [True, False, True]
    assert verdicts.judged("a") is None
    assert verdicts.judged("c") is not None
    assert verdicts.known_count == 2


def test_no_memory_at_all_is_possible() -> None:
    verdicts = make(known=0, recent=0)
    verdicts.observe(announcement())
    verdicts.observe(verdict())
    assert verdicts.known("default", SHA) is None


def test_a_verdict_reaches_the_scan_that_waits_for_it_and_no_other() -> None:
    async def go() -> tuple[Judgement, bool]:
        verdicts = make()
        mine, other = verdicts.expect("mine"), verdicts.expect("other")
        rule = RuleFired(name="explicit", decision=Decision.REJECT, frame=3)
        verdicts.observe(verdict("mine", decision=Decision.REJECT, rules=(rule,)))
        verdicts.observe(verdict("mine", decision=Decision.ACCEPT))  # at least once: the second is the same scan again
        return await mine, other.done()

    judgement, other_done = asyncio.run(go())
    assert judgement.decision is Decision.REJECT
    assert orjson.loads(judgement.rules) == [{"name": "explicit", "decision": "reject", "frame": 3}]
    assert not other_done


def test_a_verdict_after_the_waiting_ended_is_still_learnt() -> None:
    async def go() -> Verdicts:
        verdicts = make()
        verdicts.expect("late").cancel()
        verdicts.expect("forgotten")
        verdicts.forget("forgotten")
        verdicts.observe(verdict("late"))
        verdicts.observe(verdict("forgotten"))
        return verdicts

    verdicts = asyncio.run(go())
    assert verdicts.judged("late") is not None
    assert verdicts.judged("forgotten") is not None
    assert verdicts.waiting_count == 0


def rescanned(decision: Decision, *, policy: str = "p2", at: int = 10, **changes: object) -> Received:
    message = verdict(decision=decision, policy=policy, judged_at=at).message
    assert message is not None
    return received(message.model_copy(update={"stage": Stage.RESCAN, "rescan": "r", **changes}))


def known(*records: Received, tenant: str = "default", sha256: bytes = SHA) -> Decision | None:
    verdicts = make()
    for record in records:
        verdicts.observe(record)
    found = verdicts.known(tenant, sha256)
    return None if found is None else found.decision


REJECTED = verdict(decision=Decision.REJECT)
ANNOUNCED = {"p1": announcement(), "p2": announcement(policies={EVERY_TENANT: "p2"})}


@pytest.mark.parametrize("live", ["p1", "p2"])
def test_a_rescan_takes_the_place_of_what_is_known_whichever_of_the_two_policies_is_in_force(live: str) -> None:
    assert known(ANNOUNCED[live], REJECTED, rescanned(Decision.ACCEPT)) is Decision.ACCEPT
    assert known(ANNOUNCED[live], verdict(), rescanned(Decision.REJECT)) is Decision.REJECT


@pytest.mark.parametrize("live", ["p1", "p2"])
def test_a_rescan_that_is_undone_is_known_by_what_stood_before(live: str) -> None:
    undone = rescanned(Decision.REJECT, policy="p1", at=11)
    assert known(ANNOUNCED[live], REJECTED, rescanned(Decision.ACCEPT), undone) is Decision.REJECT


def test_once_a_third_policy_is_in_force_what_a_rescan_said_is_not_known() -> None:
    third = announcement(policies={EVERY_TENANT: "p3"})
    assert known(third, REJECTED, rescanned(Decision.ACCEPT)) is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_live_verdict_that_is_newer_than_the_rescan_counts_whichever_is_read_first(order: int) -> None:
    both = [verdict(judged_at=20), rescanned(Decision.REJECT, at=10)][::order]
    assert known(ANNOUNCED["p1"], *both) is Decision.ACCEPT


def test_what_a_rescan_said_for_one_tenant_is_not_known_to_another() -> None:
    assert known(ANNOUNCED["p1"], REJECTED, rescanned(Decision.ACCEPT), tenant="other") is Decision.REJECT


def test_a_rescans_hit_on_a_list_is_for_the_list_to_answer() -> None:
    hit = rescanned(Decision.REJECT, policy="", models={}, hash_list="known@2")
    assert known(ANNOUNCED["p1"], verdict(), hit) is Decision.ACCEPT


def test_one_scan_is_reported_as_the_rescan_left_it() -> None:
    verdicts = make()
    for record in (REJECTED, rescanned(Decision.ACCEPT), verdict(decision=Decision.REVIEW, judged_at=20)):
        verdicts.observe(record)
    verdicts.observe(rescanned(Decision.REJECT, at=15))
    found = verdicts.judged("scan")
    assert found is not None and found.decision is Decision.REVIEW


def test_no_more_of_a_rescan_is_kept_than_of_other_verdicts() -> None:
    verdicts = make(known=2)
    verdicts.observe(announcement())
    for number in range(3):
        verdicts.observe(rescanned(Decision.REJECT, policy="p1", sha256=bytes([number]) * 32))
    assert [verdicts.known("default", bytes([n]) * 32) is not None for n in range(3)] == [False, True, True]


def test_tombstones_and_poison_records_change_nothing() -> None:
    verdicts = make()
    verdicts.observe(received(None))
    verdicts.observe(received(None, fault=SchemaUnknown("verdict/9")))
    assert verdicts.known_count == 0


def test_what_is_kept_of_a_verdict_leaves_no_holes_among_the_frames_that_come_and_go():
    # In a process of its own, whose memory nothing else has stirred; the frames of one image after another come and go.
    program = """
import os, resource
from tests.unit.gateway.test_verdicts import make, verdict

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

kept = make(known=20_000, recent=20_000)
for number in range(12_000):
    if number == 2_000:
        before = resident()
    frames = [os.urandom(6_000 + (number * 37 + part * 911) % 5_000) for part in range(2)]
    kept.observe(verdict(f"scan-{number}", sha256=number.to_bytes(32, "big")))
    del frames
print((resident() - before) // 10_000)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 2500, "bytes of memory for each verdict"


def imported(record: Received) -> Received:
    return replace(record, imported=True)


def test_what_was_imported_is_known_and_answers_nobody_that_waits():
    async def scenario() -> None:
        verdicts = make()
        verdicts.observe(announcement())
        waiting = verdicts.expect("scan")
        verdicts.observe(imported(verdict("scan", decision=Decision.REJECT)))
        assert not waiting.done()
        known = verdicts.known("default", SHA)
        assert known is not None
        assert known.decision is Decision.REJECT

    asyncio.run(scenario())


def test_what_was_imported_takes_the_place_of_nothing_newer():
    verdicts = make()
    verdicts.observe(announcement())
    verdicts.observe(verdict("new", judged_at=2))
    verdicts.observe(imported(verdict("old", judged_at=1, decision=Decision.REJECT)))
    known = verdicts.known("default", SHA)
    assert known is not None
    assert known.decision is Decision.ACCEPT
    verdicts.observe(imported(verdict("newer", judged_at=3, decision=Decision.REJECT)))
    known = verdicts.known("default", SHA)
    assert known is not None
    assert known.decision is Decision.REJECT
