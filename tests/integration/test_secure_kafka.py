"""A Kafka that is not ours: SASL_SSL with SCRAM, and mutual TLS, by settings alone."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fediwarden.kafka.jars import prepare_jars
from fediwarden.kafka.java import find_java
from schemas.broker import BrokerSettings, BrokerUnavailable, Consumer, Producer, Tail, apply_topics, check_topics
from schemas.topics import IMAGES, TOPICS
from tests.certificates import Authority
from tests.kafka import cache_dir, find_free_ports, make_cluster
from tests.unit.schemas.samples import SHA256, image

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class SecureKafka:
    """Where the listeners are, and the certificates that open them."""

    scram: str
    mutual_tls: str
    authority: Authority
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority(folder / "certificates")
    _, _, broker_pem = authority.issue("broker")
    certificate, key, _ = authority.issue("client")
    scram, tls = find_free_ports(2), 0
    tls = scram + 1
    cluster = make_cluster(folder / "kafka")
    node = cluster.nodes[1]
    node.write_files()
    classpath = ":".join(map(str, prepare_jars(cache_dir())))
    command = [str(find_java()), "-cp", classpath, "kafka.tools.StorageTool", "format"]
    command += ["-t", node.cluster_id, "-c", str(node.properties_file)]
    command += ["--add-scram", "SCRAM-SHA-512=[name=warden,password=right]"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    cluster.prepare()
    properties = node.properties()
    with node.properties_file.open("a") as file:
        file.write(
            f"""
listeners={properties["listeners"]},SCRAM://127.0.0.1:{scram},MTLS://127.0.0.1:{tls}
advertised.listeners={properties["advertised.listeners"]},SCRAM://127.0.0.1:{scram},MTLS://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.mtls.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={broker_pem}
ssl.truststore.type=PEM
ssl.truststore.location={authority.ca_file}
"""
        )
    cluster.start_node(1)
    try:
        cluster.wait_ready()
        yield SecureKafka(f"127.0.0.1:{scram}", f"127.0.0.1:{tls}", authority, certificate, key)
    finally:
        cluster.stop()


def scram_settings(secure: SecureKafka, password: str = "right") -> BrokerSettings:
    return BrokerSettings(
        bootstrap_servers=secure.scram,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="warden",
        sasl_password=password,
        ssl_ca_file=secure.authority.ca_file,
    )


def mutual_tls_settings(secure: SecureKafka) -> BrokerSettings:
    return BrokerSettings(
        bootstrap_servers=secure.mutual_tls,
        security_protocol="SSL",
        ssl_ca_file=secure.authority.ca_file,
        ssl_cert_file=secure.certificate,
        ssl_key_file=secure.key,
    )


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
