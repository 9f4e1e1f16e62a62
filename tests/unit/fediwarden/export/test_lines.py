"""Messages as lines of a file and back, bit for bit; what is wrong with a line is named."""

import io
import json
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fediwarden.export.errors import ImportInvalid
from fediwarden.export.kinds import KINDS, ORIGIN_ROWS, OVERRIDE_ROWS, VERDICT_ROWS, Kind
from fediwarden.export.lines import Entry, first_line, line_of, read_entries, read_kind
from fediwarden.export.rows import TIMES, column_names, row_of
from schemas.codec import encode
from schemas.messages import Decision, Message, RuleFired, Stage, Timings, Verdict
from schemas.messages.base import EpochMs
from tests.unit.schemas.samples import SAMPLES, verdict

PATH = Path("verdicts.jsonl")

hashes = st.binary(min_size=32, max_size=32)
whole = st.integers(0, (1 << 64) - 1)
times = st.integers(0, 1 << 50)
names = st.text(max_size=20)
verdicts = st.builds(
    Verdict,
    scan_id=st.text(min_size=1, max_size=64),
    tenant=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    sha256=hashes,
    decision=st.sampled_from(Decision),
    rules=st.lists(st.builds(RuleFired, name=names, decision=st.sampled_from(Decision), frame=whole), max_size=3).map(
        tuple
    ),
    scores=st.dictionaries(names | st.sampled_from(sorted(TIMES)), st.floats(0.0, 1.0), max_size=5),
    worst_frame=whole,
    frame_count=st.integers(1, 8),
    pdq=st.lists(hashes, max_size=3).map(tuple),
    pdq_quality=st.lists(st.integers(0, 100), max_size=3).map(tuple),
    media_type=names,
    length=whole,
    models=st.dictionaries(names | st.sampled_from(sorted(TIMES)), names, max_size=3),
    policy=names,
    hash_list=names,
    rescan=st.text(max_size=40),
    stage=st.sampled_from(Stage),
    scanner=names,
    topic=names,
    partition=whole,
    offset=whole,
    received_at=times,
    judged_at=times,
    timings=st.builds(
        Timings, **dict.fromkeys(Timings.model_fields, st.floats(allow_nan=False) | st.integers(0, 9).map(float))
    ),
)


def file_of(kind: Kind, *lines: bytes) -> io.BytesIO:
    head = first_line(kind, exported_at=0, since=0, until=None, tenants=())
    return io.BytesIO(head + b"".join(lines))


def read(file: io.BytesIO) -> list[Entry]:
    return list(read_entries(PATH, file, read_kind(PATH, file)))


@settings(max_examples=40)
@given(verdicts, times)
def test_any_verdict_survives_the_file_bit_for_bit(message: Verdict, published_at: int) -> None:
    (entry,) = read(file_of(VERDICT_ROWS, line_of(VERDICT_ROWS, message, published_at)))
    assert entry.message == message
    assert encode(entry.message) == encode(message)
    assert (entry.published_at, entry.line) == (published_at, 2)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, sample in SAMPLES.items()
        if isinstance(sample, tuple(m for k in KINDS.values() for m in k.messages))
    ],
)
def test_every_message_that_is_exported_survives_the_file(name: str) -> None:
    message = SAMPLES[name]
    kind = next(kind for kind in KINDS.values() if isinstance(message, kind.messages))
    (entry,) = read(file_of(kind, line_of(kind, message, 5)))
    assert entry.message == message
    assert type(entry.message) is type(message)
    assert encode(entry.message) == encode(message)


def test_a_row_is_flat_and_plain() -> None:
    row = json.loads(line_of(VERDICT_ROWS, verdict(), 1_795_000_000_300))
    assert list(row) == [*column_names(Verdict), "published_at"]
    assert row["sha256"] == bytes(range(32)).hex()
    assert row["pdq"] == [bytes(range(32, 64)).hex()] * 8
    assert row["rules"] == [{"name": "explicit", "decision": "reject", "frame": 1}]
    assert row["scores"]["safety-s/nsfw"] == 0.97
    assert row["judged_at"] == "2026-11-18T11:06:40.250Z"
    assert row["infer_ms"] == 30.0
    assert "timings" not in row


def times_in(kind: type[BaseModel]) -> set[str]:
    """The fields that are declared as moments, here and in the messages within."""
    found: set[str] = set()
    for name, field in kind.model_fields.items():
        declared = kind.__annotations__.get(name, field.annotation)
        if EpochMs in (declared, *get_args(declared)):
            found.add(name)
        for leaf in (field.annotation, *get_args(field.annotation)):
            leaf = get_args(leaf)[0] if get_origin(leaf) is Annotated else leaf
            if isinstance(leaf, type) and issubclass(leaf, BaseModel):
                found |= times_in(leaf)
    return found


@pytest.mark.parametrize("message", [each for kind in KINDS.values() for each in kind.messages])
def test_every_moment_of_a_message_is_known_as_one(message: type[Message]) -> None:
    moments = times_in(message)
    assert moments
    assert moments <= TIMES


def changed(**changes: object) -> bytes:
    row = json.loads(line_of(VERDICT_ROWS, verdict(), 5)) | changes
    return json.dumps({name: value for name, value in row.items() if value is not ...}).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        (changed(sha256="xy"), "sha256", "hexadecimal"),
        (changed(sha256="ab"), "sha256", "32"),
        (changed(pdq=["00"]), "pdq", "32"),
        (changed(judged_at="yesterday"), "judged_at", "no time"),
        (changed(judged_at="2026-11-18T11:06:40"), "judged_at", "zone"),
        (changed(judged_at=None), "judged_at", ""),
        (changed(published_at="soon"), "published_at", "no time"),
        (changed(decision="perhaps"), "decision", "accept"),
        (changed(scores={"a/b": 2}), "scores.a/b", "1"),
        (changed(rules=[{"name": "x", "decision": "reject", "frame": -1}]), "rules.0.frame", "0"),
        (changed(rules=[{"name": "x", "decision": "reject", "frame": 1, "why": ""}]), "rules.why", "no such column"),
        (changed(rules=["explicit"]), "rules", "object"),
        (changed(infer_ms="long"), "infer_ms", "number"),
        (changed(policy=...), "policy", "required"),
        (changed(mood="good"), "mood", "no such column"),
        (changed(offset=1 << 80), "offset", "maximum size"),
        (changed(offset="1" + "0" * 30), "", "64 bits"),
        (changed(media_type="x" * (256 << 10)), "", "too large"),
        (b"{\n", "", "no JSON"),
        (b"[1]\n", "", "no JSON object"),
        (b"\xff\n", "", "no JSON"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(line: bytes, field: str, says: str) -> None:
    good = line_of(VERDICT_ROWS, verdict(), 5)
    with pytest.raises(ImportInvalid) as error:
        read(file_of(VERDICT_ROWS, good, b"\n", line, good))
    assert error.value.line == 4
    assert error.value.field.startswith(field)
    assert says in str(error.value)
    assert f"{PATH}, line 4" in str(error.value)
    assert "Nothing was imported" in str(error.value)


@pytest.mark.parametrize(
    ("head", "field"),
    [
        (b"", ""),
        (b"\x89PNG\n", ""),
        (line_of(VERDICT_ROWS, verdict(), 5), "format"),
        (b'{"format": "fediwarden export 1", "export": "answers"}\n', "export"),
        (b'{"format": "fediwarden export 1", "export": "verdicts", "messages": ["verdict/2"]}\n', "messages"),
        (b'{"format": "fediwarden export 1", "export": "verdicts"}\n', "messages"),
    ],
)
def test_a_file_that_is_no_export_is_refused(head: bytes, field: str) -> None:
    with pytest.raises(ImportInvalid) as error:
        read(io.BytesIO(head))
    assert (error.value.line, error.value.field) == (1, field)


def test_a_line_of_a_topic_with_several_messages_says_which_it_is() -> None:
    line = line_of(ORIGIN_ROWS, SAMPLES["actor-forgotten-1"], 5)
    assert json.loads(line)["message"] == "actor-forgotten"
    with pytest.raises(ImportInvalid) as error:
        read(file_of(ORIGIN_ROWS, line.replace(b"actor-forgotten", b"actor-remembered")))
    assert error.value.field == "message"


def test_a_column_that_is_missing_has_the_message_s_own_default() -> None:
    (entry,) = read(file_of(VERDICT_ROWS, changed(rescan=..., queued_ms=..., published_at=...)))
    assert isinstance(entry.message, Verdict)
    assert entry.message.timings == Timings(decode=4.5, wait=0.25, infer=30.0)
    assert entry.published_at == verdict().judged_at


def test_an_override_s_end_may_be_open() -> None:
    message = SAMPLES["override-set-1"].model_copy(update={"until": None})
    assert row_of(message)["until"] is None
    (entry,) = read(file_of(OVERRIDE_ROWS, line_of(OVERRIDE_ROWS, message, 5)))
    assert entry.message == message
