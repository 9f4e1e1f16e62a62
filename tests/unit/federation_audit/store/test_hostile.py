"""What strangers may send, and what a database may do to us: nothing is lost, nothing else suffers."""

import random

import pytest

from federation_audit.assessing.reading import read_known
from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreRefused
from federation_audit.store.facts import Role
from federation_audit.store.migrating import migrate
from federation_audit.store.queries import Count, read_incidents, read_instance, read_instances, read_origins
from federation_audit.store.recorder import Recorder
from schemas.broker import Partition
from schemas.domains import NotADomain, normalise_domain
from schemas.messages import Confidence, Decision, OriginCommunity
from schemas.topics import DAY_MS, VERDICTS
from tests.postgres import Postgres
from tests.stores import FAR_BACK, NOON, answered, content, judged, received, seen, write

REJECT = Decision.REJECT

SPELLINGS = {
    "a.example": ["A.EXAMPLE", "a.example.", "a.example:443", "a.example:8536", "user:secret@a.example", " a.example "],
    "xn--bcher-kva.example": ["bücher.example", "BÜCHER.example", "XN--BCHER-KVA.example", "bu\u0308cher.example"],
    "xn--80ak6aa92e.example": ["\u0430\u0440\u0440\u04cf\u0435.example"],  # Cyrillic: not apple.example
    "192.0.2.7": ["192.0.2.7:8536"],
    "[2001:db8::1]": ["[2001:DB8:0::0001]", "[2001:db8::1]:443"],
    "expyuzz4wqqyqhjn.onion": ["EXPYUZZ4wqqyqhjn.onion"],
    f"{'a' * 56}.onion": [f"{'A' * 56}.onion:80"],
}
NO_DOMAINS = [
    "<script>alert(1)</script>",
    "a.example/x",
    "a b.example",
    "a.example:99999",
    "a..example",
    "\u202eelpmaxe.a",
    "a_b.example\0",
    "x" * 253,
    "[::1",
    "@",
    "999.999.999.999.",
]


def count(store: Store, domain: str) -> Count:
    with store.reading() as connection:
        return read_instance(connection, domain).now


def test_every_spelling_of_a_domain_is_one_instance_and_look_alikes_are_others(store):
    said = [
        seen(number, spelling, post=f"{number}-{spelling}", actor=spelling)
        for number, (domain, spellings) in enumerate(SPELLINGS.items())
        for spelling in (domain, *spellings)
    ]
    write(store, [judged(number, REJECT) for number in range(len(SPELLINGS))], said)
    with store.reading() as connection:
        found = {each.domain: (each.now.exposed, each.incidents) for each in read_instances(connection)}
    assert found == {domain: (1, 1 + len(spellings)) for domain, spellings in SPELLINGS.items()}


def test_what_names_no_host_is_not_known_and_its_other_facts_are_kept(store):
    said = [seen(1, text, post=str(number), host="pictures.example") for number, text in enumerate(NO_DOMAINS)]
    for text in NO_DOMAINS:
        with pytest.raises(NotADomain):
            normalise_domain(text)
    write(store, [judged(1, REJECT)], said)
    with store.reading() as connection:
        assert read_instances(connection) == []
        assert [each.domain for each in read_instances(connection, Role.HOST)] == ["pictures.example"]
        assert len(read_origins(connection, 1)) == len(NO_DOMAINS)


def hostile_texts() -> list[str]:
    chance = random.Random(7)
    wild = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(1024))  # 3 KB that do not compress
    return [
        "<script>alert(1)</script>",
        "\u202egnp.elif\u202c",
        "\0\0",
        "'; DROP TABLE origins; --",
        "%s %(name)s {0} \\",
        "=cmd|' /C calc'!A0",
        "e\u0301" * 500,
        "\U0001f4a3" * 1024,
        wild,
    ]


def test_hostile_ids_and_addresses_are_kept_as_text_or_not_at_all_and_stop_nothing(store):
    said = []
    for number, text in enumerate(hostile_texts()):
        community = OriginCommunity(instance="town.example", actor_id=text, confidence=Confidence.CERTAIN)
        origin = seen(number, "a.example", actor=text, post=text, alias=text[:256], url=text * 2, community="x.example")
        said.append(origin.model_copy(update={"community": community, "observer": text * 10}))
    images = [judged(number, REJECT, scan=text[:64]) for number, text in enumerate(hostile_texts())]
    write(store, images, said)
    write(store, images, said)
    assert count(store, "a.example") == Count(len(said), len(said))
    with store.reading() as connection:
        assert [each.domain for each in read_instances(connection, Role.COMMUNITY)] == ["town.example"]
    assert any("<script>" in line for line in content(store))


def test_more_rules_than_an_index_takes_stop_nothing(store):
    many = judged(1, REJECT)
    chance = random.Random(8)
    rules = tuple(many.rules[0].model_copy(update={"name": f"{chance.randbytes(30).hex()}"}) for _ in range(100))
    write(store, [many.model_copy(update={"rules": rules}), seen(1, "a.example")])
    assert count(store, "a.example") == Count(1, 1)


TIMES = [0, 1, 10**12, 4_102_444_799_999, 253_402_300_800_000, 2**62, 2**63, 10**30]


@pytest.mark.parametrize("at", TIMES)
def test_no_time_that_anybody_claims_stops_anything(store, at):
    recorder = write(store, [judged(1, REJECT), seen(1, "a.example", actor="x")])
    wrong = [
        judged(2, REJECT, at=at),
        answered(2, at=at),
        seen(2, "b.example", actor="x", at=at),
        seen(1, "a.example", actor="y", posted=at),
        seen(3, "c.example", at=NOON, posted=at),
    ]
    recorder.record(received(wrong), {Partition(VERDICTS, 0): 5})
    while recorder.tidy(NOON):
        pass
    assert count(store, "a.example") == Count(1, 1)
    with store.reading() as connection:
        table, _ = read_known(connection, verified_lists=(), local_domains=frozenset())
        incidents = read_incidents(connection, "a.example")
    assert table is not None
    assert len(incidents) == 2
    assert max(each.day for each in incidents) == NOON // DAY_MS  # no post is younger than its observation
    assert Recorder(store, holder="test", retention_days=FAR_BACK).offsets == {Partition(VERDICTS, 0): 5}


def test_an_origin_of_a_hash_never_seen_says_nothing_and_accuses_nobody(store):
    write(store, [seen(number, "a.example", actor=f"{number}") for number in range(20)])
    assert count(store, "a.example") == Count()
    with store.reading() as connection:
        _, known = read_known(connection, verified_lists=("any",), local_domains=frozenset())
        assert (read_incidents(connection, "a.example"), known.evidence.incidents) == ([], ())


@pytest.fixture
def role(postgres: Postgres) -> str:
    """A database of a role that owns nothing yet; the role's URL. Its name is "audit_<database>"."""
    name = postgres.make_database("")
    postgres.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    return postgres.server.url(name, user=name, password="secret")


def test_rights_that_are_missing_are_named_with_the_setting_and_enough_once_granted(postgres, role):
    name = role.rpartition("/")[2]
    with (
        Store(role.replace("secret", "wrong")) as store,
        pytest.raises(StoreRefused, match=r"audit\.database") as caught,
    ):
        migrate(store)
    assert "wrong" not in str(caught.value)
    with Store(role) as store:
        with pytest.raises(StoreRefused, match=r"permission denied.*audit\.database, and that we may"):
            migrate(store)
        postgres.server.execute(f"GRANT CREATE ON SCHEMA public TO {name}", database=name)
        migrate(store)
        recorder = write(store, [judged(1, REJECT)])
        postgres.server.execute("ALTER TABLE media OWNER TO postgres", database=name)
        with pytest.raises(StoreRefused, match=r"permission denied for table media.*audit\.database"):
            recorder.record(received([judged(2, REJECT)]), {})
        postgres.server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON media TO {name}", database=name)
        write(store, [judged(2, REJECT), seen(1, "a.example"), seen(2, "a.example")])
        assert count(store, "a.example") == Count(2, 2)
        postgres.server.execute(f"ALTER ROLE {name} NOLOGIN")
        store.close()
        with pytest.raises(StoreRefused, match="not permitted to log in"):
            write(store)
