"""The numbers of the store as Prometheus gets them."""

from prometheus_client import CollectorRegistry

from federation_audit.assessing.assessor import Assessor
from federation_audit.pages.metrics import AuditCollector
from federation_audit.store.engine import Store
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, Decision
from schemas.topics import DAY_MS
from tests.stores import answered, judged, open_store, sqlite_url, write


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def collected(store: Store) -> tuple[CollectorRegistry, Clock]:
    registry, clock = CollectorRegistry(), Clock()
    registry.register(AuditCollector(store, Assessor(store), monotonic=clock))
    return registry, clock


def test_what_is_open_is_counted_and_dated_until_it_is_judged(tmp_path) -> None:
    now = now_ms()
    with open_store(sqlite_url(tmp_path)) as store:
        write(
            store,
            [
                answered(1, AnsweredBy.DEADLINE, at=now - 2 * DAY_MS),
                answered(2, AnsweredBy.SPOOLED, at=now),
                answered(3, AnsweredBy.OVERLOAD, at=now - 30 * DAY_MS),  # it has left Kafka: nobody judges it any more
                answered(4, at=now),
                judged(4, decision=Decision.REJECT, at=now),
            ],
        )
        registry, clock = collected(store)
        assert registry.get_sample_value("fediwarden_ledger_open_images") == 2
        oldest = registry.get_sample_value("fediwarden_ledger_oldest_open_timestamp_seconds")
        assert oldest == (now - 2 * DAY_MS) // DAY_MS * DAY_MS / 1000
        assert registry.get_sample_value("fediwarden_audit_reviews_waiting") == 1
        assert registry.get_sample_value("fediwarden_audit_instances", {"level": "watch"}) == 0
        write(store, [judged(1, at=now), judged(2, at=now)])
        assert registry.get_sample_value("fediwarden_ledger_open_images") == 2, "it is asked for twice a minute at most"
        clock.now = 30.0
        assert registry.get_sample_value("fediwarden_ledger_open_images") == 0
        assert registry.get_sample_value("fediwarden_ledger_oldest_open_timestamp_seconds") is None


def test_while_its_database_does_not_answer_there_are_no_numbers() -> None:
    with Store("postgresql://nobody@127.0.0.1:9/nothing") as store:
        registry, _ = collected(store)
        assert registry.get_sample_value("fediwarden_ledger_open_images") is None
        assert list(registry.collect()) == []
