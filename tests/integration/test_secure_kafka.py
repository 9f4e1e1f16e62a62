"""A Kafka that is not ours: SASL_SSL with SCRAM, and mutual TLS, by settings alone; ACLs as the docs name them."""

import asyncio
import hashlib
import json
import os
import re
import stat
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from structlog.testing import capture_logs
from typer.testing import CliRunner

from federation_audit.lemmy import service as lemmy_service
from federation_audit.lemmy.settings import LemmySettings
from federation_audit.publishing import OriginPublisher
from federation_audit.recording.service import RECORDED_TOPICS
from fediwarden.access.errors import UserRefused
from fediwarden.access.roles import ROLES, rights_of
from fediwarden.access.users import add_user, change_password, drop_user, grant_role, read_users
from fediwarden.cli import app
from fediwarden.settings import Settings
from gateway.erasure.janitor import Janitor
from gateway.erasure.settings import ErasureSettings
from gateway.erasure.ticks import TICK_KEY
from schemas.broker import (
    AccessRefused,
    AssignedReader,
    BrokerRefused,
    BrokerSettings,
    BrokerUnavailable,
    Consumer,
    Producer,
    Right,
    Tail,
    apply_topics,
    check_topics,
    diff_topics,
    list_users,
    read_rights,
    set_password,
    set_rights,
)
from schemas.messages import Decision, OriginObserved, OverrideEffect, OverrideKind, OverrideSet
from schemas.topics import (
    ANSWERS,
    ENFORCEMENTS,
    IMAGES,
    IMAGES_ARCHIVE,
    IMAGES_BACKLOG,
    IMAGES_DEAD,
    ORIGINS,
    OVERRIDES,
    RESCAN_JOBS,
    RESCANS,
    TOPICS,
    VERDICTS,
)
from tests.certificates import Authority
from tests.integration.test_enforcer import archive, enforcing, observing, tenant, verdict
from tests.integration.test_erasure import QUICK, WITHIN_S, ends, judge, new_image, publish, until, until_begins
from tests.models import models_dir
from tests.pict_rs import FORMATS, running_pict_rs
from tests.processes import Process
from tests.scanners import KEYRING, submit, submitted
from tests.scanners import observing as observing_scanners
from tests.secure_kafka import Intruder, SecureKafka, mutual_tls_settings, running_secure_kafka, scram_settings
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.schemas.samples import SAMPLES, SHA256, image

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with running_secure_kafka(tmp_path_factory.mktemp("secure")) as secure:
        yield secure


@pytest.mark.parametrize("make_settings", [scram_settings, mutual_tls_settings])
def test_every_client_of_ours_works_through_it(secure, make_settings):
    settings = make_settings(secure).model_copy(update={"topic_prefix": f"{make_settings.__name__}."})

    async def scenario() -> None:
        await apply_topics(settings)
        await check_topics(settings, TOPICS)
        seen = []
        async with (
            Tail(settings, [IMAGES], since_s=60, on_record=seen.append, client_id="test"),
            Producer(settings, client_id="test") as producer,
            Consumer(settings, [IMAGES], group="test", client_id="test") as consumer,
        ):
            await producer.publish(IMAGES, image(), key=SHA256)
            records = await consumer.poll(max_messages=1, timeout_s=20)
            assert [record.message for record in records] == [image()]
            consumer.done(records[0])
            while not seen:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


RIGHT = re.compile(r"\| (topic|group) `(.+?)` \| (.+?) \|")
TOPICS_PAGE = Path(__file__).parents[2] / "docs" / "topics.md"


def documented_rights(whose: str) -> set[tuple[str, str, str]]:
    """What the docs say that `whose` needs: a kind of resource, its name without the prefix, an operation."""
    section = TOPICS_PAGE.read_text().split(f"## What {whose} may do")[1].split("\n## ")[0]
    rows = RIGHT.findall(section)
    assert rows, f"no rights of {whose}"
    return {(kind, name, operation) for kind, name, operations in rows for operation in operations.split(", ")}


async def allow(broker: BrokerSettings, user: str, rights: Iterable[tuple[str, str, str]]) -> None:
    """These, besides those that it has."""
    wanted = {Right(kind, broker.topic_prefix + name, operation) for kind, name, operation in rights}
    present = (await read_rights(broker)).get(user, frozenset())
    await set_rights(broker, user, present | wanted)


async def deny(producer: Producer, data: bytes) -> None:
    override = SAMPLES["override-set-1"].model_copy(
        update={
            "effect": OverrideEffect.DENY,
            "kind": OverrideKind.SHA256,
            "hash": hashlib.sha256(data).digest(),
            "until": None,
        }
    )
    assert isinstance(override, OverrideSet)
    await producer.publish(OVERRIDES, override, key=override.override_id.encode())


def test_the_rights_that_the_docs_name_are_what_an_enforcer_needs_and_one_that_lacks_is_told(secure, tmp_path):
    late, judged = new_image(), new_image()
    rights = documented_rights("the enforcer")
    missing = ("topic", "images", "Delete")
    plain = BrokerSettings(bootstrap_servers=secure.plain, topic_prefix="acl.")
    theirs = scram_settings(secure, user="enforcer").model_copy(update={"topic_prefix": plain.topic_prefix})
    janitors: list[Janitor] = []

    def erase(producer: Producer) -> Coroutine[None, None, None]:
        janitors.append(Janitor(ErasureSettings(every_s=0.2, groups=("scanners",)), theirs, producer))
        return janitors[0].run()

    async def scenario() -> None:
        await apply_topics(plain, (*QUICK, ANSWERS, VERDICTS, ENFORCEMENTS, OVERRIDES))
        await allow(plain, "enforcer", rights - {missing})
        await publish(plain, IMAGES, judged)
        await publish(plain, IMAGES_BACKLOG, late)
        await judge(plain, 2)
        async with observing(plain) as (observed, producer):
            await archive(producer, b"bad")
            with capture_logs() as logged, running_pict_rs(tmp_path) as pict_rs:
                pict_rs.files.keep(b"bad", FORMATS["image/jpeg"])
                async with enforcing(theirs, {"default": tenant(pict_rs)}, companions=[erase]):
                    await producer.publish(VERDICTS, verdict(b"bad", "1"), key=b"bad")
                    accepted = verdict(b"denied", "2", decision=Decision.ACCEPT)
                    await producer.publish(VERDICTS, accepted, key=b"denied")
                    await observed.until(lambda: observed.is_over(b"bad") and observed.is_erased(b"bad"))
                    await until_begins(plain, IMAGES_BACKLOG, [1, 0])
                    await deny(producer, b"denied")
                    await observed.until(lambda: observed.is_over(b"denied"))
                    await until(lambda: "images-0" in janitors[0].failures, "told")
                    assert "docs/topics.md" in str(janitors[0].failures["images-0"])

                    await allow(plain, "enforcer", [missing])
                    await until_begins(plain, IMAGES, [1, 0])
                    lanes_and_archive = ((IMAGES, 1), (IMAGES_BACKLOG, 1), (IMAGES_ARCHIVE, 2))
                    for topic, _ in lanes_and_archive:  # as another janitor does; this one reads what has come
                        await producer.publish(topic, None, key=TICK_KEY, partition=1)
                    async with asyncio.timeout(WITHIN_S):
                        for topic, written in lanes_and_archive:
                            while sum(await ends(plain, topic)) <= written + 1:
                                await asyncio.sleep(0.05)
                    await until(lambda: not janitors[0].failures, "all is well")
                assert pict_rs.files.sha256s() == set()
        told = {place for line in logged if "erasure fails" in line["event"] for place in line["places"]}
        assert told == {"images-0"}

    asyncio.run(scenario())


def test_the_rights_that_the_docs_name_are_what_relay_lemmy_and_audit_need(secure):
    plain = BrokerSettings(bootstrap_servers=secure.plain, topic_prefix="sides.")
    topics = (ANSWERS, ENFORCEMENTS, IMAGES_ARCHIVE, IMAGES_DEAD, ORIGINS, OVERRIDES, RESCAN_JOBS, RESCANS, VERDICTS)
    sample = SAMPLES["origin-observed-1"]
    assert isinstance(sample, OriginObserved)
    told = sample.model_copy(update={"sha256": SHA256})

    def settings_of(user: str) -> BrokerSettings:
        return scram_settings(secure, user=user).model_copy(update={"topic_prefix": plain.topic_prefix})

    async def relay() -> None:
        broker = settings_of("relay")
        await check_topics(broker, (ORIGINS,))
        await check_topics(broker, (ANSWERS,))
        async with (
            Tail(broker, (ANSWERS,), since_s=60, on_record=lambda _: None, client_id="test"),
            Producer(broker, client_id="test") as producer,
        ):
            await producer.publish(ORIGINS, told, key=SHA256)

    async def lemmy() -> None:
        broker = settings_of("lemmy")
        await check_topics(broker, lemmy_service.NEEDED_TOPICS)
        async with (
            Producer(broker, client_id="test") as producer,
            Consumer(broker, lemmy_service.NEEDED_TOPICS, group=LemmySettings().group, client_id="test") as consumer,
        ):
            await producer.publish(ORIGINS, told, key=SHA256)
            (record, *_) = await consumer.poll(max_messages=10, timeout_s=20)
            consumer.done(record)

    async def audit() -> None:
        broker = settings_of("audit")
        await check_topics(broker, RECORDED_TOPICS)
        async with AssignedReader(broker, RECORDED_TOPICS, starts={}, client_id="test") as reader:
            records = []
            async with asyncio.timeout(WITHIN_S):
                while not records:
                    records = await reader.poll(timeout_s=1, most=10)
        assert {record.message for record in records} == {told}
        publisher = OriginPublisher(broker, client_id="test")
        running = asyncio.create_task(publisher.run())
        await until(lambda: publisher._producer is not None, "connected")
        await publisher.publish(told)
        running.cancel()
        async with Producer(broker, client_id="test") as producer:
            await producer.publish(OVERRIDES, SAMPLES["override-set-1"], key=b"one")
        with pytest.raises(TimeoutError):  # a right that is missing may be given yet: it is tried again for ever
            async with Producer(broker, client_id="test") as producer, asyncio.timeout(5):
                await producer.publish(VERDICTS, verdict(b"bad", "1"), key=b"bad")
        async with AssignedReader(plain, (VERDICTS,), starts={}, client_id="test") as reader:
            assert set((await reader.ends()).values()) == {0}
        await check_topics(broker, (OVERRIDES, IMAGES_ARCHIVE))

    async def scenario() -> None:
        await apply_topics(plain, topics)
        for user, whose in (("relay", "the relay"), ("lemmy", "lemmy"), ("audit", "the audit")):
            await allow(plain, user, documented_rights(whose))
        for side in (relay, lemmy, audit):
            await side()

    asyncio.run(scenario())


def test_whoever_may_not_ask_for_a_topics_settings_is_refused_with_its_name(secure):
    plain = BrokerSettings(bootstrap_servers=secure.plain, topic_prefix="dumb.")
    theirs = scram_settings(secure, user="enforcer").model_copy(update={"topic_prefix": plain.topic_prefix})

    async def scenario() -> None:
        await apply_topics(plain, (VERDICTS,))
        await allow(plain, "enforcer", [("topic", "verdicts", "Describe")])
        with pytest.raises(BrokerRefused, match=r"dumb\.verdicts \(right DescribeConfigs\)"):
            await check_topics(theirs, (VERDICTS,))

    asyncio.run(scenario())


NO_TOPIC, NO_GROUP = TopicAuthorizationFailedError.errno, GroupAuthorizationFailedError.errno
HOME_READS = {"images", "images.backlog", "models.promoted", "scanners"}
HOME_WRITES = {"features", "images.archive", "images.backlog", "images.dead", "scanners", "verdicts"}


def home_environment(broker: BrokerSettings, folder: Path) -> dict[str, str]:
    """As compose/compose.home-scanner.yaml gives it; the key file is in `folder`."""
    assert broker.sasl_username is not None and broker.sasl_password is not None
    return {
        "FEDIWARDEN_DATA_DIR": str(folder),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": broker.topic_prefix,
        "FEDIWARDEN_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "FEDIWARDEN_KAFKA__SASL_USERNAME": broker.sasl_username,
        "FEDIWARDEN_KAFKA__SASL_PASSWORD": broker.sasl_password.get_secret_value(),
        "FEDIWARDEN_KAFKA__SSL_CA_FILE": str(broker.ssl_ca_file),
        "FEDIWARDEN_SCANNER__MODELS_DIR": str(models_dir()),
        "FEDIWARDEN_SCANNER__RESCANS": "false",
    }


async def assert_kept_out(user: BrokerSettings, plain: BrokerSettings) -> None:
    """`user`, a scanner at home, may do what it needs and gets nowhere with anything else."""
    async with Intruder(user) as intruder:
        reads = {topic.name: await intruder.read(topic.name) for topic in TOPICS}
        assert {name for name, code in reads.items() if code == 0} == HOME_READS
        assert set(reads.values()) == {0, NO_TOPIC}
        writes = {topic.name: await intruder.write(topic.name) for topic in TOPICS if topic.name not in HOME_WRITES}
        assert set(writes.values()) == {NO_TOPIC}
        groups = {name: await intruder.commit(name) for name in ("fediwarden-scanner", "enforcer", "lemmy", "rescan-1")}
        assert {name for name, code in groups.items() if code != NO_GROUP} == {"fediwarden-scanner"}
        refusals = await intruder.administer()
        assert set(refusals.values()) == {NO_TOPIC}, refusals
    for change in (set_rights(user, "home", ()), set_password(user, "admin", "mine"), read_rights(user)):
        with pytest.raises(BrokerRefused):
            await change
    assert await diff_topics(plain) == []


def test_a_scanner_at_home_judges_and_may_nothing_else_until_it_is_revoked(secure, tmp_path, monkeypatch):
    plain = BrokerSettings(bootstrap_servers=secure.plain, topic_prefix="home.")
    runner = CliRunner()
    monkeypatch.setenv("FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", secure.plain)
    monkeypatch.setenv("FEDIWARDEN_KAFKA__TOPIC_PREFIX", plain.topic_prefix)
    password_file = tmp_path / "password"
    add = ["kafka", "users", "add", "home", "--role", "home-scanner", "--password-file", str(password_file)]

    async def scenario() -> None:
        await apply_topics(plain)
        added = await asyncio.to_thread(runner.invoke, app, add)
        assert added.exit_code == 0, added.output
        assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
        password = password_file.read_text().strip()
        assert password not in added.output
        again = await asyncio.to_thread(runner.invoke, app, [*add[:-1], str(tmp_path / "another")])
        assert isinstance(again.exception, UserRefused)
        assert not (tmp_path / "another").exists()

        user = scram_settings(secure, password, user="home").model_copy(update={"topic_prefix": plain.topic_prefix})
        KEYRING.save(tmp_path / "keys.json")
        scanner = Process(["scanner"], environment=home_environment(user, tmp_path), log_file=tmp_path / "log")
        try:
            async with observing_scanners(plain) as (observed, producer):
                await submit(producer, submitted("bad", rejected_picture()), submitted("good", accepted_picture()))
                await observed.until(lambda: observed.verdicts.keys() == {"bad", "good"})
                assert observed.verdicts["bad"].decision is Decision.REJECT
                await observed.until(lambda: observed.messages(IMAGES_ARCHIVE) and observed.announcements)
                await assert_kept_out(user, plain)

                listed = await asyncio.to_thread(runner.invoke, app, ["kafka", "users", "list", "--json"])
                (home,) = [each for each in json.loads(listed.output) if each["name"] == "home"]
                assert (home["roles"], home["password"]) == (["home-scanner"], True)

                removed = await asyncio.to_thread(runner.invoke, app, ["kafka", "users", "remove", "home"])
                assert removed.exit_code == 0, removed.output
                # It is logged in still: what it asks for is refused from now on, and it ends.
                assert await asyncio.to_thread(scanner.wait) == os.EX_CONFIG, scanner.log
                with pytest.raises(BrokerUnavailable, match="sasl_"):
                    await check_topics(user, [IMAGES])
        finally:
            scanner.kill()
        assert password not in scanner.log

    asyncio.run(scenario())


def test_a_kafka_without_an_authorizer_takes_no_users(kafka, monkeypatch):
    monkeypatch.setenv("FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    added = CliRunner().invoke(app, ["kafka", "users", "add", "home", "--role", "home-scanner"])
    assert isinstance(added.exception, AccessRefused)
    assert "authorizer.class.name" in str(added.exception)
    assert asyncio.run(list_users(kafka)) == frozenset()


def test_rights_follow_a_role_and_a_password_can_be_changed(secure):
    settings = Settings.model_validate(
        {"kafka": {"bootstrap_servers": secure.plain, "topic_prefix": "roles."}, "scanner": {"group": "one"}}
    )
    moved = settings.model_copy(update={"scanner": settings.scanner.model_copy(update={"group": "two"})})

    async def scenario() -> None:
        with pytest.raises(UserRefused):
            await grant_role(settings, "nobody", ROLES["relay"])
        await add_user(settings, "guest", ROLES["home-scanner"], "first")
        await add_user(settings, "other", ROLES["relay"], "other")
        given, taken = await grant_role(moved, "guest", ROLES["home-scanner"])
        assert given == {Right("group", "roles.two", "Read")}
        assert taken == {Right("group", "roles.one", "Read")}
        assert await grant_role(moved, "guest", ROLES["home-scanner"]) == (frozenset(), frozenset())

        await change_password(settings, "guest", "second")
        assert await list_users(scram_settings(secure)) >= {"guest", "other", "warden"}
        with pytest.raises(BrokerUnavailable):
            await read_rights(scram_settings(secure, "first", user="guest"))
        with pytest.raises(BrokerRefused, match="super user"):
            await read_rights(scram_settings(secure, "second", user="guest"))

        assert await drop_user(settings, "guest") == len(rights_of(ROLES["home-scanner"], settings))
        by_name = {user.name: user.roles for user in await read_users(settings)}
        assert "guest" not in by_name
        assert by_name["other"] == ("relay",)
        with pytest.raises(UserRefused):
            await drop_user(settings, "guest")

    asyncio.run(scenario())


def test_a_wrong_password_gets_nowhere_and_the_error_names_the_settings(secure):
    with pytest.raises(BrokerUnavailable, match="sasl_"):
        asyncio.run(check_topics(scram_settings(secure, "wrong"), [IMAGES]))


def test_a_client_without_a_certificate_gets_nowhere(secure):
    without = mutual_tls_settings(secure).model_copy(update={"ssl_cert_file": None, "ssl_key_file": None})
    with pytest.raises(Exception, match=secure.mutual_tls):
        asyncio.run(check_topics(without, [IMAGES]))


def test_a_broker_signed_by_somebody_else_is_not_trusted(secure, tmp_path):
    other = Authority(tmp_path)
    with pytest.raises(Exception, match=secure.scram):
        asyncio.run(check_topics(scram_settings(secure).model_copy(update={"ssl_ca_file": other.ca_file}), [IMAGES]))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
        ({"security_protocol": "SSL", "ssl_cert_file": "x.pem"}, "ssl_key_file"),
        ({"security_protocol": "TLS"}, "security_protocol"),
        ({"topic_prefix": "a b"}, "topic_prefix"),
    ],
)
def test_incomplete_settings_name_what_is_missing(wrong, named):
    with pytest.raises(ValueError, match=named):
        BrokerSettings(bootstrap_servers="kafka:9093", **wrong)


def test_a_certificate_file_that_is_not_there_is_told(tmp_path):
    settings = BrokerSettings(
        bootstrap_servers="127.0.0.1:9", security_protocol="SSL", ssl_ca_file=tmp_path / "missing.pem"
    )
    with pytest.raises(Exception, match="No such file"):
        asyncio.run(check_topics(settings, [IMAGES]))
