"""Settings of the embedded Kafka, on top of those for reaching any Kafka."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from schemas.broker.settings import BrokerSettings

LOOPBACK = "127.0.0.1"


def _read_kafka_home() -> Path | None:
    value = os.environ.get("KAFKA_HOME")
    return Path(value) if value else None


class KafkaSettings(BrokerSettings):
    """Which Kafka to use: the embedded one while `bootstrap_servers` is empty, else that cluster."""

    port: int = Field(
        14092, ge=1, le=65534, description="Port of the embedded Kafka on 127.0.0.1; the next one is its controller's."
    )
    heap_mb: int = Field(512, ge=128, description="Largest Java heap of the embedded Kafka, in MB.")
    min_free_gb: float = Field(2.0, ge=0.0, description="Free disk that the embedded Kafka needs to start, in GB.")
    java_options: tuple[str, ...] = Field(
        (),
        description="More options for the embedded Kafka's Java. -XX:TieredStopAtLevel=1 (the quick compiler alone)"
        " spares CPU in its first minute and costs twice as much a message after it.",
    )
    home: Path | None = Field(
        default_factory=_read_kafka_home,
        description="An unpacked Apache Kafka 4 whose jars to run instead of fetching them (also: KAFKA_HOME).",
    )

    @model_validator(mode="after")
    def _embedded_is_plain(self) -> Self:
        if self.embedded and self.security_protocol != "PLAINTEXT":
            raise ValueError(
                "security_protocol applies to a Kafka of your own: set bootstrap_servers, or leave it PLAINTEXT"
            )
        return self

    @property
    def embedded(self) -> bool:
        """Whether `fediwarden up` starts a Kafka itself."""
        return not self.bootstrap_servers

    def broker_settings(self) -> BrokerSettings:
        """How clients reach the Kafka in use, embedded or not."""
        shared = {name: getattr(self, name) for name in BrokerSettings.model_fields}
        if self.embedded:
            shared["bootstrap_servers"] = f"{LOOPBACK}:{self.port}"
        return BrokerSettings(**shared)
