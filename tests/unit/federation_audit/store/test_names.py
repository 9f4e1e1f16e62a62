"""A cluster goes by its smallest sha256, whoever names it."""

from federation_audit.assessing.reading import read_known
from federation_audit.assessing.traces import read_traces
from federation_audit.reviewing.closeup import read_cluster
from federation_audit.reviewing.queue import read_details, read_waiting
from federation_audit.store.dump import dump_lines
from federation_audit.store.engine import Store
from federation_audit.store.queries import name_clusters, read_incidents
from schemas.messages import Decision
from tests.fediverse import review
from tests.stores import judged, pdq, seen, sha, write

OURS = (1, 2, 3)
THEIRS = 4
"""All four look alike; the last is another tenant's, and another instance's."""


def test_a_cluster_has_one_name_everywhere_and_in_a_rebuilt_store(store: Store) -> None:
    looks = [pdq(1)]
    messages = [
        *(judged(image, Decision.REJECT, looks=looks) for image in OURS),
        judged(THEIRS, Decision.REJECT, looks=looks, tenant="second"),
        *(seen(image, "bad.example", actor="a") for image in OURS),
        seen(THEIRS, "other.example", actor="b", tenant="second"),
    ]
    write(store, [judged(9, Decision.REJECT), *reversed(messages)]).release()
    name = min(sha(image) for image in (*OURS, THEIRS))
    for image in OURS:
        review(store, [sha(image)])
    with store.reading() as connection:
        _, known = read_known(connection, verified_lists=(), local_domains=frozenset())
        [incident] = known.evidence.incidents
        [trace] = read_traces(connection, "bad.example", known.confirmed).incidents
        [stored] = read_incidents(connection, "bad.example")
        assert (incident.cluster, trace.cluster, stored.cluster) == (name.hex(), name.hex(), name)
        assert incident.incident_id == trace.id and name.hex() in trace.id and trace.confirmed
        rows, _ = read_waiting(connection, "carol", evidence=["bad.example"])
        row = next(each for each in rows if each.tenant == "second")
        [details] = read_details(connection, [row])
        assert details.cluster == name.hex() and row.name == sha(THEIRS)
        [ours] = name_clusters(connection, [row.cluster]).values()
        assert ours == name
        seen_near = read_cluster(connection, "carol", "default", sha(2), start=0, size=9)
        assert seen_near is not None and seen_near.name == min(sha(image) for image in OURS)
        flags = [line for line in dump_lines(connection) if line.startswith('["flags"')]
        assert sum(f'"cluster_id": "{name.hex()}"' in line for line in flags) == 4
