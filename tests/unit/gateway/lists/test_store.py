"""Lists on disk: whole or not at all, and the same for everybody."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListDamaged, ListError, ListUnknown
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.learning import Learning, forget_hash, lessons_of
from gateway.lists.settings import LearnSettings
from gateway.lists.store import ListStore, Suspension
from gateway.overrides.memory import NO_LOOKS, Looks
from schemas.messages import Decision, OverrideEffect, OverrideKind, OverrideSet, RuleFired, Stage, Verdict
from tests.unit.schemas.samples import verdict

HASHES = HashSet.of({HashKind.PDQ: [bytes([n]) * 32 for n in range(9)], HashKind.MD5: [b"m" * 16]})
DEFINITION = ListDefinition(name="a", source="x.txt", action="review", reason="why", distance=12, expires_at=5)


def test_a_list_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    store = ListStore(tmp_path / "lists")
    assert store.names() == []
    saved = store.save(DEFINITION, HASHES, notes={"00": {"by": "policy"}})
    read = ListStore(tmp_path / "lists").load("a")
    assert (read.definition, read.version, read.fetched_at, read.notes) == (
        DEFINITION,
        saved.version,
        saved.fetched_at,
        {"00": {"by": "policy"}},
    )
    assert all(read.hashes.hexadecimal(kind) == HASHES.hexadecimal(kind) for kind in HashKind)
    assert (tmp_path / "lists" / "a.list").stat().st_mode & 0o077 == 0  # hash lists are not for everybody


def test_the_version_goes_by_the_hashes_and_the_stamp_by_the_file(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    first, stamp = store.save(DEFINITION, HASHES).version, store.stamps()["a"]
    assert store.save(DEFINITION, HASHES).version == first
    assert store.stamps()["a"] != stamp
    assert store.save(DEFINITION, HashSet.of({HashKind.MD5: [b"m" * 16]})).version != first


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_that_was_changed_or_cut_is_never_taken_for_a_list(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = ListStore(tmp_path_factory.mktemp("lists"))
    store.save(DEFINITION, HASHES, notes={"aa": {"by": "policy"}})
    path = store._path("a", ".list")
    whole = path.read_bytes()
    at = data.draw(st.integers(whole.index(b"\n") + 1, len(whole) - 1))
    changed = whole[:at] if data.draw(st.booleans()) else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    path.write_bytes(changed)
    with pytest.raises(ListDamaged, match="--replace"):
        store.load("a")


@pytest.mark.parametrize("garbage", [b"", b"\n", b"{}\n", b"\xff" * 100, b'{"format": "other/9"}\n', b"[" * 70_000])
def test_what_is_no_list_at_all_is_damaged(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "a.list").write_bytes(garbage)
    with pytest.raises(ListDamaged):
        ListStore(tmp_path).load("a")


def test_an_unknown_list_names_those_there_are(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    store.save(DEFINITION, HASHES)
    with pytest.raises(ListUnknown, match="'b'; there are: a"):
        store.load("b")
    with pytest.raises(ListUnknown):
        store.remove("b")


def test_a_reader_sees_the_old_list_or_the_new_one_while_it_is_replaced(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    sets = [HashSet.of({HashKind.PDQ: [bytes([n]) * 32 for n in range(count)]}) for count in (1, 200)]
    versions = {store.save(DEFINITION, each).version for each in sets}
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for each in sets:
                store.save(DEFINITION, each)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        assert {store.load("a").version for _ in range(150)} <= versions
    finally:
        stop.set()
        writer.join()
    assert not list(tmp_path.glob(".new-*"))


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(ListError, match="cannot be"):  # not by root either
        ListStore(Path("/proc/lists")).save(DEFINITION, HASHES)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("")
    with pytest.raises(ListError, match="lists"):
        ListStore(tmp_path / "lists").save(DEFINITION, HASHES)


def test_a_suspension_outlives_a_refresh_and_ends_with_a_word(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    store.save(DEFINITION, HASHES)
    suspension = Suspension(version="v", matched=6, images=100, at=7, by="gateway-1")
    store.suspend("a", suspension)
    store.save(DEFINITION, HASHES)
    assert store.suspension("a") == suspension
    assert set(store.suspended()) == {"a"}
    assert store.resume("a")
    assert not store.resume("a")
    assert store.suspension("a") is None


def test_an_unreadable_suspension_still_suspends(tmp_path: Path) -> None:
    (tmp_path / "a.suspended").write_bytes(b"{")
    assert ListStore(tmp_path).suspension("a") is not None


def NOTHING_KNOWN(sha256: bytes) -> Looks:  # noqa: N802
    return NO_LOOKS


REJECTED = verdict(
    pdq=tuple(bytes([n]) * 32 for n in range(4)),
    pdq_quality=(90, 90, 60, 90),
    rules=(
        RuleFired(name="explicit", decision=Decision.REJECT, frame=1),
        RuleFired(name="plain", decision=Decision.REJECT, frame=2),
        RuleFired(name="doubtful", decision=Decision.REVIEW, frame=3),
        RuleFired(name="gore", decision=Decision.REJECT, frame=1),
    ),
)


def test_a_rejection_teaches_the_frames_that_a_rejecting_rule_saw_and_that_are_fit_for_matching() -> None:
    learnt = lessons_of(REJECTED, min_quality=70)
    assert set(learnt) == {b"\1" * 32}
    assert learnt[b"\1" * 32]["rules"] == ["explicit", "gore"]
    assert learnt[b"\1" * 32]["scan_id"] == REJECTED.scan_id


@pytest.mark.parametrize(
    "changes",
    [{"decision": Decision.REVIEW}, {"stage": Stage.LIST}, {"pdq_quality": ()}, {"pdq": ()}],
    ids=["not rejected", "from a list", "of an older scanner", "without hashes"],
)
def test_anything_else_teaches_nothing(changes: dict[str, object]) -> None:
    assert lessons_of(REJECTED.model_copy(update=changes), min_quality=70) == {}


def test_what_is_learnt_is_added_once_up_to_the_bound_and_what_was_taken_out_stays_out(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    learning = Learning(LearnSettings(source="rejections", max_hashes=3), store, NOTHING_KNOWN)
    lessons = {bytes([n]) * 32: {"by": "policy", "at": n} for n in range(6)}
    first = dict(list(lessons.items())[:2])
    learning._write(first)
    version = store.load("own").version
    learning._write(first)
    assert store.load("own").version == version
    assert forget_hash(store, "own", bytes(32))
    assert not forget_hash(store, "own", bytes(32))
    learning._write(lessons)
    stored = store.load("own")
    assert stored.hashes.hexadecimal(HashKind.PDQ) == [bytes([n]).hex() * 32 for n in (1, 2, 3)]
    assert stored.notes[("02") * 32] == {"by": "policy", "at": 2}


def test_a_list_from_elsewhere_is_not_learnt_into(tmp_path: Path) -> None:
    store = ListStore(tmp_path)
    store.save(ListDefinition(name="own", source="http://elsewhere/"), HASHES)
    learning = Learning(LearnSettings(source="rejections"), store, NOTHING_KNOWN)
    with pytest.raises(ListError, match=r"gateway\.lists\.learn\.list_name"):
        learning._write({bytes(32): {}})


SHA, LOOK, OTHER = b"s" * 32, b"\1" * 32, b"\3" * 32


def word(effect: str = "deny", kind: str = "sha256", hash_: bytes = SHA, at: int = 10, **more: object) -> OverrideSet:
    fields = {"tenant": "*", "set_by": "alice", "reason": "seen", "set_at": at, **more}
    return OverrideSet(effect=OverrideEffect(effect), kind=OverrideKind(kind), hash=hash_, **fields)


def taught(
    tmp_path: Path, *steps: object, source: str = "confirmed", looks: Looks = NO_LOOKS
) -> tuple[list[str], dict]:
    """The list's hashes and notes after verdicts, words, and words taken back (a tuple), each written by itself."""
    store = ListStore(tmp_path)
    learning = Learning(LearnSettings(source=source), store, lambda sha256: looks)
    for step in steps:
        if isinstance(step, OverrideSet):
            learning.heed(step)
        elif isinstance(step, tuple):
            learning.take_back(step[0])
        else:
            learning.observe(step)
        learning._write(learning._waiting, learning._taken_back, learning._unlearnt)
        learning._waiting, learning._taken_back, learning._unlearnt = {}, set(), {}
    if "own" not in store.names():
        return [], {}
    stored = store.load("own")
    return stored.hashes.hexadecimal(HashKind.PDQ), dict(stored.notes)


def test_what_a_person_denied_is_listed_by_the_frames_that_its_verdict_knew(tmp_path: Path) -> None:
    hashes, notes = taught(tmp_path, word(), looks=Looks(LOOK + OTHER, complete=True))
    assert hashes == [LOOK.hex(), OTHER.hex()]
    assert notes[LOOK.hex()] == {"by": "person", "at": 10, "override": word().override_id}
    assert "alice" not in str(notes)


def test_a_denial_of_bytes_that_no_verdict_knew_yet_is_listed_when_there_is_one(tmp_path: Path) -> None:
    late = REJECTED.model_copy(update={"sha256": SHA, "pdq_quality": (10, 90, 10, 90), "decision": Decision.ACCEPT})
    assert taught(tmp_path, word(), late)[0] == [LOOK.hex(), OTHER.hex()]


def test_a_denied_look_is_listed_as_it_is(tmp_path: Path) -> None:
    assert taught(tmp_path, word(kind="pdq", hash_=LOOK, distance=31))[0] == [LOOK.hex()]


@pytest.mark.parametrize("more", [{"tenant": "one"}, {"until": 1 << 50}], ids=["one tenant", "an end"])
def test_a_word_for_one_tenant_or_with_an_end_is_not_for_a_list(tmp_path: Path, more: dict[str, object]) -> None:
    assert taught(tmp_path, word(kind="pdq", hash_=LOOK, **more)) == ([], {})


def test_only_a_person_teaches_a_list_of_confirmed_rejections(tmp_path: Path) -> None:
    assert taught(tmp_path / "a", REJECTED) == ([], {})
    assert taught(tmp_path / "b", REJECTED, source="rejections")[0] == [LOOK.hex()]


def test_what_a_person_allows_is_taken_out_whoever_listed_it_and_a_policy_does_not_list_it_again(
    tmp_path: Path,
) -> None:
    allowed = word("allow", "pdq", LOOK, at=20)
    denied = word("deny", "pdq", LOOK)
    for number, first in enumerate((REJECTED, denied)):
        folder = tmp_path / str(number)
        assert taught(folder, first, source="rejections")[0] == [LOOK.hex()]
        assert taught(folder, allowed, REJECTED, source="rejections")[0] == []
        assert taught(folder, denied, source="rejections")[0] == [], "a gateway that starts reads old words again"
        assert taught(folder, word("deny", "pdq", LOOK, at=30), source="rejections")[0] == [LOOK.hex()]


def test_a_denial_that_is_taken_back_takes_its_entries_along_and_no_others(tmp_path: Path) -> None:
    denied = word(kind="pdq", hash_=OTHER)
    assert taught(tmp_path, REJECTED, denied, (denied,), source="rejections")[0] == [LOOK.hex()]


def test_a_denial_that_gets_an_end_is_an_entry_no_more(tmp_path: Path) -> None:
    denied = word(kind="pdq", hash_=OTHER)
    assert taught(tmp_path, denied, word(kind="pdq", hash_=OTHER, at=20, until=1 << 50))[0] == []


def test_what_was_taken_out_of_the_list_by_command_is_not_listed_by_an_older_word(tmp_path: Path) -> None:
    denied = word(kind="pdq", hash_=LOOK)
    taught(tmp_path, denied)
    assert forget_hash(ListStore(tmp_path), "own", LOOK)
    assert taught(tmp_path, denied)[0] == []
    assert taught(tmp_path, word(kind="pdq", hash_=LOOK, at=1 << 50))[0] == [LOOK.hex()]


def rescanned(decision: Decision, *, frames: int = 1, **changes: object) -> Verdict:
    """A rescan's verdict on a picture that a policy rejected."""
    fields = {
        "stage": Stage.RESCAN,
        "rescan": "r",
        "decision": decision,
        "rules": (RuleFired(name="explicit", decision=decision, frame=0),),
        "frame_count": frames,
        "pdq": (LOOK,) * frames,
        "pdq_quality": (100,) * frames,
        "judged_at": REJECTED.judged_at + 10,
    }
    return REJECTED.model_copy(update={**fields, **changes})


def test_what_a_rescan_rejects_is_listed_and_what_it_lets_in_is_listed_no_more(tmp_path: Path) -> None:
    accepted, rejected = rescanned(Decision.ACCEPT), rescanned(Decision.REJECT)
    assert taught(tmp_path / "1", rejected, source="rejections")[0] == [LOOK.hex()]
    assert taught(tmp_path / "2", REJECTED, accepted, source="rejections") == ([], {})
    undone = rescanned(Decision.REJECT, judged_at=accepted.judged_at + 1)
    hashes, notes = taught(tmp_path / "3", REJECTED, accepted, undone, source="rejections")
    assert hashes == [LOOK.hex()]
    assert notes[LOOK.hex()]["by"] == "policy"


def test_a_rescan_that_lets_in_what_is_not_written_yet_keeps_it_from_being_listed(tmp_path: Path) -> None:
    learning = Learning(LearnSettings(source="rejections"), ListStore(tmp_path), NOTHING_KNOWN)
    learning.observe(REJECTED)
    learning.observe(rescanned(Decision.ACCEPT))
    assert learning._waiting == {}


def test_what_a_person_listed_stays_listed_whatever_a_rescan_lets_in(tmp_path: Path) -> None:
    denied = word(kind="pdq", hash_=LOOK)
    assert taught(tmp_path, denied, rescanned(Decision.ACCEPT), source="rejections")[0] == [LOOK.hex()]


@pytest.mark.parametrize(
    "changes",
    [{"frames": 2}, {"hash_list": "known@2"}, {"decision": Decision.REVIEW}],
    ids=["of several frames, judged by their highest scores", "on a list", "not rejected"],
)
def test_what_else_a_rescan_says_teaches_nothing(changes: dict[str, object]) -> None:
    assert lessons_of(rescanned(**{"decision": Decision.REJECT, **changes}), min_quality=70) == {}
