"""What is kept of an instance's traces: never older than the store, or than what is confirmed."""

import pytest

from federation_audit.assessing import traces
from federation_audit.assessing.traces import Traces, prepare_traces, read_traces
from federation_audit.statistics.events import Confirmation
from schemas.messages import Decision
from tests.stores import forgotten, judged, received, seen, sha, write

REJECT = Decision.REJECT


def test_they_are_read_again_when_they_changed_and_only_then(store, monkeypatch):
    monkeypatch.setattr(traces._kept, "_most", 5 * traces._EACH_WEIGHS)
    recorder = write(store, [judged(1, decision=REJECT), seen(1, "a.example", actor="ann")])
    confirmed = {}

    def read(domain: str = "a.example") -> Traces:
        with store.reading() as connection:
            return read_traces(connection, domain, dict(confirmed))

    first = read()
    assert len(first.incidents) == 1
    recorder.record(received([judged(2, decision=Decision.ACCEPT), seen(2, "a.example", actor="ann")]), {})
    assert read() is first, "nothing that is flagged"
    confirmed["default", sha(1)] = Confirmation.REVIEWERS
    assert read().incidents[0].confirmed is Confirmation.REVIEWERS
    recorder.record(received([judged(3, decision=REJECT), seen(3, "a.example", actor="ann")]), {})
    assert len(read().incidents) == 2
    recorder.record(received([seen(3, "a.example", actor="bea")]), {})
    assert len(read().incidents) == 3
    recorder.record(received([forgotten("ann")]), {})
    assert len(read().incidents) == 1
    last = read()
    for number in range(3):
        read(f"other{number}.example")
    assert read() is last, "they and three without any weigh less than five"
    for number in range(4):
        read(f"other{number}.example")
    assert read() is not last, "those asked for last are kept"
    assert read() == last


def test_those_of_the_largest_are_read_ahead(store, monkeypatch):
    """As many as half of what is kept may be: of instances with 5, 4, 2 and 1 sightings, the first two of 9."""
    monkeypatch.setattr(traces, "KEPT_MOST", 18)
    monkeypatch.setattr(traces, "_LEAST_PREPARED", 2)
    sizes = {"d.example": 1, "b.example": 4, "a.example": 5, "c.example": 2}
    images = iter(range(100))
    messages = [
        message
        for domain, size in sizes.items()
        for image in [next(images) for _ in range(size)]
        for message in (judged(image, decision=REJECT), seen(image, domain, actor="ann"))
    ]
    write(store, messages)
    with store.reading() as connection:
        prepare_traces(connection)
        monkeypatch.setattr(traces._kept, "_read", _never)
        for domain in ("a.example", "b.example"):
            assert len(read_traces(connection, domain, {}).incidents) == sizes[domain]
        for domain in ("c.example", "d.example"):
            with pytest.raises(AssertionError):
                read_traces(connection, domain, {})


def _never(*_: object) -> None:
    raise AssertionError("it is read")
