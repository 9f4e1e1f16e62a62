"""What is kept of an instance's traces: never older than the store, or than what is confirmed."""

from federation_audit.assessing import traces
from federation_audit.assessing.traces import Traces, read_traces
from federation_audit.statistics.events import Confirmation
from schemas.messages import Decision
from tests.stores import forgotten, judged, received, seen, sha, write

REJECT = Decision.REJECT


def test_they_are_read_again_when_they_changed_and_only_then(store):
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
    for number in range(traces._KEPT_MOST):
        read(f"other{number}.example")
    assert read() is not last, "those asked for last are kept"
    assert read() == last
