"""A Kafka that asks who you are: TLS, SCRAM, mutual TLS and ACLs, as compose/compose.home-listener.yaml sets it."""

import datetime
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
ssl.truststore.location={clients.ca_file}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:warden;User:CN=client
"""
        )
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
