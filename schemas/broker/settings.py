"""How to reach a Kafka cluster, and what its topics are called."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class BrokerSettings(BaseModel):
    """Any Kafka 3.5 or later: plain, TLS, mutual TLS, SASL (SCRAM or PLAIN), or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field("", description="host:port of one or more brokers, comma separated.")
    topic_prefix: str = Field(
        "fediwarden.",
        pattern=r"^[a-zA-Z0-9._-]*$",
        max_length=100,
        description="Prefix of every topic and consumer group, for several fediwardens on one cluster.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, with a SASL_ protocol."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    ssl_ca_file: Path | None = Field(
        None,
        description="PEM file of the CA that signed the brokers' certificates; the system's CAs when unset.",
    )
    ssl_cert_file: Path | None = Field(None, description="PEM file of our certificate, for mutual TLS.")
    ssl_key_file: Path | None = Field(None, description="PEM file of our certificate's key, for mutual TLS.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of ssl_key_file, if it has one.")
    ssl_check_hostname: bool = Field(True, description="Whether a broker's certificate must name its host.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username and sasl_password are needed with a SASL security_protocol")
        if bool(self.ssl_cert_file) != bool(self.ssl_key_file):
            raise ValueError("ssl_cert_file and ssl_key_file are needed together for mutual TLS")
        return self

    def client_options(self) -> dict[str, Any]:
        """The connection arguments that aiokafka's clients share. Raises OSError or ssl.SSLError on bad TLS files."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            assert self.sasl_username is not None and self.sasl_password is not None
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ssl_ca_file) if self.ssl_ca_file else None)
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_cert_file and self.ssl_key_file:
            password = self.ssl_key_password.get_secret_value() if self.ssl_key_password else None
            context.load_cert_chain(self.ssl_cert_file, self.ssl_key_file, password)
        return context
