"""The store as a database: its tables, its lease, its transactions, what it says when something is wrong."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from federation_audit.accounts.tables import METADATA as ACCOUNTS
from federation_audit.deciding.tables import METADATA as DECIDING
from federation_audit.presence.tables import METADATA as PRESENCE
from federation_audit.reviewing.tables import METADATA as REVIEWING
from federation_audit.sending.tables import METADATA as SENDING
from federation_audit.store import lease
from federation_audit.store.dump import digest
from federation_audit.store.engine import Store, parse_url
from federation_audit.store.errors import (
    LeaseTaken,
    RebuildWanted,
    SchemaTooNew,
    SchemaTooOld,
    StoreRefused,
    StoreUnavailable,
)
from federation_audit.store.migrating import check_schema, migrate
from federation_audit.store.queries import forgotten_at, read_incidents, read_instance, read_offsets
from federation_audit.store.recorder import Recorder
from federation_audit.store.state import read_state, write_state
from federation_audit.store.tables import METADATA
from federation_audit.viewing.tables import METADATA as VIEWING
from schemas.broker import Partition
from schemas.clock import now_ms
from schemas.messages import Decision
from schemas.topics import VERDICTS
from tests.stores import (
    FAR_BACK,
    NOON,
    content,
    forgotten,
    judged,
    open_store,
    pseudonym,
    received,
    seen,
    sqlite_url,
    write,
)


def test_the_migrations_make_the_tables_that_the_code_declares(store):
    with store.reading() as connection:
        tables = [METADATA, ACCOUNTS, REVIEWING, DECIDING, SENDING, PRESENCE, VIEWING]
        assert compare_metadata(MigrationContext.configure(connection), tables) == []
    migrate(store)
    check_schema(store)


def test_a_store_of_a_newer_fediwarden_is_refused_and_one_without_tables_as_well(database_url, tmp_path):
    with Store(sqlite_url(tmp_path / "other")) as empty, pytest.raises(SchemaTooOld, match="audit record"):
        check_schema(empty)
    with Store(database_url) as store:
        migrate(store)
        with store.writing() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        for act in (check_schema, migrate):
            with pytest.raises(SchemaTooNew, match="9999"):
                act(store)


def test_rows_and_offsets_are_there_together_or_not_at_all(store, monkeypatch):
    partition = Partition(VERDICTS, 3)
    recorder = write(store)
    recorder.record(received([judged(1)]), {partition: 5})
    before = content(store)
    monkeypatch.setattr("federation_audit.store.evidence.write_incidents", _fail)
    with pytest.raises(ZeroDivisionError):
        recorder.record(received([judged(2, Decision.REJECT), seen(2, "a.example")]), {partition: 7})
    assert content(store) == before
    again = Recorder(store, holder="test", retention_days=FAR_BACK)
    assert again.offsets == {partition: 5}
    with store.reading() as connection:
        assert read_offsets(connection) == {("verdicts", 3): 5}


def _fail(*_: object) -> None:
    raise ZeroDivisionError


def test_one_process_writes_and_the_next_may_when_it_has_let_go(store, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_MS", 600_000)
    first = write(store)
    with pytest.raises(LeaseTaken, match="test writes the audit store"):
        Recorder(store, holder="other", retention_days=FAR_BACK)
    first.release()
    second = Recorder(store, holder="other", retention_days=FAR_BACK)
    second.record([], {})
    with pytest.raises(LeaseTaken, match="other writes"):
        first.record([], {})


def test_a_lease_that_is_over_goes_to_whoever_asks(store, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_MS", -1)
    first = write(store)
    Recorder(store, holder="other", retention_days=FAR_BACK)
    monkeypatch.setattr(lease, "LEASE_MS", 60_000)
    first.record([], {})


def test_how_far_the_recorder_is_stands_with_the_rows_and_is_no_content(store):
    recorder = write(store, [judged(1)])
    with store.reading() as connection:
        state = read_state(connection)
    assert (state.recorded_at, state.lag) == (0, -1)
    before, content_before = now_ms(), content(store)
    recorder.record([], {}, lag=12)
    recorder.record([], {})
    with store.reading() as connection:
        state = read_state(connection)
    assert state.lag == 12 and before <= state.recorded_at <= now_ms()
    assert content(store) == content_before


def test_a_rebuild_clears_what_messages_made_and_gives_the_same_content(store):
    said = [judged(1, Decision.REJECT), judged(2), seen(1, "a.example", actor="x"), seen(2, "b.example")]
    recorder = write(store, said)
    recorder.record([], {Partition(VERDICTS, 0): 9})
    before = content(store)
    with store.writing() as connection:
        write_state(connection, wanted=1)
    with pytest.raises(RebuildWanted):
        recorder.record(received([judged(3)]), {})
    recorder.clear()
    assert content(store) == []
    again = Recorder(store, holder="test", retention_days=FAR_BACK)
    assert again.offsets == {}
    again.record(received(reversed(said)), {})
    assert content(store) == before


def test_a_forgotten_actor_is_gone_also_from_what_is_read_later(store):
    before = [judged(1, Decision.REJECT), seen(1, "a.example", actor="y")]
    traces = [seen(1, "a.example", actor="x", post=str(n), at=NOON - n) for n in range(3)]
    recorder = write(store, before, traces, [forgotten("x")])
    with store.reading() as connection:
        assert [each.actor for each in read_incidents(connection, "a.example")] == [("2024Q4", pseudonym("y"))]
        assert forgotten_at(connection, "2024Q4", pseudonym("x")) == NOON
        gone = digest(connection)
    recorder.record(received(traces), {})
    with store.reading() as connection:
        assert digest(connection) == gone
    recorder.record(received([seen(1, "a.example", actor="x", at=NOON + 1)]), {})
    with store.reading() as connection:
        assert read_instance(connection, "a.example").incidents == 2


def test_what_an_actor_did_is_no_longer_in_the_file(tmp_path):
    post = "https://a.example/comment/4711"
    with open_store(sqlite_url(tmp_path)) as store:
        write(store, [seen(1, "a.example", actor="x", post=post)], [forgotten("x")])
    path = tmp_path / "audit.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert post.encode() not in path.read_bytes()


def test_thousands_of_origins_of_one_image_count_once(store):
    recorder = write(store, [judged(1, Decision.REJECT)])
    for first in range(0, 3_000, 500):
        posts = [
            seen(1, "a.example", actor=f"x{n % 50}", post=f"https://a.example/{n}") for n in range(first, first + 500)
        ]
        recorder.record(received(posts), {})
    with store.reading() as connection:
        instance = read_instance(connection, "a.example")
    assert (instance.now.exposed, instance.incidents) == (1, 50)


def test_a_file_that_is_no_store_is_refused_with_the_setting_to_look_at(tmp_path):
    (tmp_path / "audit.sqlite").write_bytes(b"something else" * 100)
    with Store(sqlite_url(tmp_path)) as store, pytest.raises(StoreRefused, match=r"audit\.database"):
        migrate(store)


def test_a_database_that_does_not_answer_is_waited_for():
    url = "postgresql://audit:secret@127.0.0.1:9/audit"
    with Store(url) as store:
        with pytest.raises(StoreUnavailable) as caught:
            migrate(store)
        assert "secret" not in str(caught.value) + store.name


@pytest.mark.parametrize("url", ["sqlite://", "mysql://host/name", "nonsense", "sqlite:///:memory:"])
def test_a_url_of_no_database_that_we_can_use_is_refused(url):
    with pytest.raises(ValueError, match=r"needed|URL"):
        parse_url(url)
