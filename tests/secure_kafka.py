"""A Kafka that asks who you are, as compose/compose.home-listener.yaml sets it: TLS, SCRAM, ACLs. And mutual TLS."""

import datetime
import subprocess
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.fetch import FetchRequest

from fediwarden.access.certificates import Authority as BrokerAuthority
from fediwarden.kafka.jars import prepare_jars
from fediwarden.kafka.java import find_java
from schemas.broker import BrokerSettings
from tests.certificates import Authority
from tests.kafka import cache_dir, find_free_ports, make_cluster


@dataclass(frozen=True)
class SecureKafka:
    """Where the listeners are, and what opens them. Through the plain one everything is allowed."""

    plain: str
    scram: str
    mutual_tls: str
    ca_file: Path
    certificate: Path
    key: Path


def read_home_listener() -> dict[str, str]:
    """The settings of Kafka in compose/compose.home-listener.yaml."""
    path = Path(__file__).parents[1] / "compose" / "compose.home-listener.yaml"
    environment = yaml.safe_load(path.read_text())["services"]["kafka"]["environment"]
    return {kafka_property(name): str(value) for name, value in environment.items()}


def kafka_property(variable: str) -> str:
    """The property that the image apache/kafka makes of `variable`: ___ is a dash, __ an underscore, _ a dot."""
    name = variable.removeprefix("KAFKA_").lower()
    return name.replace("___", "-").replace("__", "%").replace("_", ".").replace("%", "_")


@contextmanager
def running_secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """The brokers' certificate is of `fediwarden kafka certs`, the client's of another CA. Passwords are `right`."""
    clients = Authority(folder / "clients")
    certificate, key, _ = clients.issue("client")
    now = datetime.datetime.now(datetime.UTC)
    authority = BrokerAuthority(folder / "brokers")
    authority.create(now=now)
    broker_pem = authority.issue("kafka", ["127.0.0.1", "localhost"], now=now).path
    scram = find_free_ports(2)
    tls = scram + 1
    cluster = make_cluster(folder / "kafka")
    node = cluster.nodes[1]
    node.write_files()
    classpath = ":".join(map(str, prepare_jars(cache_dir())))
    command = [str(find_java()), "-cp", classpath, "kafka.tools.StorageTool", "format"]
    command += ["-t", node.cluster_id, "-c", str(node.properties_file)]
    for name in ("warden", "enforcer", "relay", "lemmy", "audit"):
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password=right]"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    cluster.prepare()
    properties = node.properties()
    home = read_home_listener()
    at = f"HOME://127.0.0.1:{scram},MTLS://127.0.0.1:{tls}"
    home |= {
        "listeners": f"{properties['listeners']},{at}",
        "advertised.listeners": f"{properties['advertised.listeners']},{at}",
        "listener.security.protocol.map": home["listener.security.protocol.map"] + ",MTLS:SSL",
        "listener.name.home.ssl.keystore.location": str(broker_pem),
        "listener.name.mtls.ssl.keystore.type": "PEM",
        "listener.name.mtls.ssl.keystore.location": str(broker_pem),
        "listener.name.mtls.ssl.truststore.type": "PEM",
        "listener.name.mtls.ssl.truststore.location": str(clients.ca_file),
        "listener.name.mtls.ssl.client.auth": "required",
        "super.users": f"{home['super.users']};User:warden;User:CN=client",
    }
    with node.properties_file.open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in home.items())
    cluster.start_node(1)
    try:
        cluster.wait_ready()
        yield SecureKafka(
            cluster.bootstrap_servers, f"127.0.0.1:{scram}", f"127.0.0.1:{tls}", authority.ca_file, certificate, key
        )
    finally:
        cluster.kill_node(1)
        cluster.stop()


def scram_settings(secure: SecureKafka, password: str = "right", *, user: str = "warden") -> BrokerSettings:
    return BrokerSettings(
        bootstrap_servers=secure.scram,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=user,
        sasl_password=password,
        ssl_ca_file=secure.ca_file,
    )


def mutual_tls_settings(secure: SecureKafka) -> BrokerSettings:
    return BrokerSettings(
        bootstrap_servers=secure.mutual_tls,
        security_protocol="SSL",
        ssl_ca_file=secure.ca_file,
        ssl_cert_file=secure.certificate,
        ssl_key_file=secure.key,
    )


class Intruder:
    """Somebody who has a user's password, and tries everything with clients of their own. An async context manager.

    Names are without the prefix. The methods return Kafka's error codes.
    """

    def __init__(self, broker: BrokerSettings) -> None:
        self._options = broker.client_options()
        self._prefix = broker.topic_prefix
        self._client = AIOKafkaClient(**self._options)
        self._producer = AIOKafkaProducer(**self._options, acks="all")

    async def __aenter__(self) -> Self:
        await self._client.bootstrap()
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._client.close()

    async def read(self, topic: str) -> int:
        partition = (0, 0, 1 << 20)
        answer = await self._ask(FetchRequest(100, 0, 1 << 20, 0, [(self._prefix + topic, [partition])]))
        return answer.topics[0][1][0][1]

    async def write(self, topic: str) -> int:
        return await _code_of(self._producer.send_and_wait(self._prefix + topic, b"?", key=b"?"))

    async def commit(self, group: str) -> int:
        """As if everything waiting had been judged."""
        topics = [(self._prefix + "images", [(0, 1 << 40, "")])]
        answer = await self._ask(OffsetCommitRequest(self._prefix + group, -1, "", -1, topics))
        return answer.topics[0][1][0][1]

    async def _ask(self, request: Any) -> Any:
        return await self._client.send(self._client.get_random_node(), request)

    async def administer(self) -> dict[str, int]:
        """Every change that there is to topics and records."""
        images = self._prefix + "images"
        config = ConfigResource(ConfigResourceType.TOPIC, images, {"retention.ms": "1"})
        async with _open_admin(self._options) as admin:
            made = (await admin.create_topics([NewTopic(self._prefix + "mine", 1, 1)])).topic_errors[0][1]
            altered = (await admin.alter_configs([config]))[0].resources[0][0]
            deleted = (await admin.delete_topics([images])).topic_error_codes[0][1]
            return {
                "create a topic": made,
                "alter a topic": altered,
                "delete a topic": deleted,
                "add partitions": await _code_of(admin.create_partitions({images: NewPartitions(50)})),
                "delete records": await _code_of(admin.delete_records({TopicPartition(images, 0): RecordsToDelete(1)})),
            }


@asynccontextmanager
async def _open_admin(options: dict[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _code_of(asked: Awaitable[Any]) -> int:
    try:
        await asked
    except TopicAuthorizationFailedError as error:
        return error.errno
    return 0
