"""What may be set about sweeps: how fast they are, and how stores are reached."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class SweepSettings(BaseModel):
    """Sweeps over what was stored before fediwarden came (docs/sweep.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rate: Annotated[float, Field(gt=0, le=10_000)] = Field(
        5.0, description="Images a second that a sweep reads and hands to the gateway at most."
    )
    concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="Objects that a sweep has in hand at one time."
    )
    patience_s: Annotated[float, Field(ge=0)] = Field(
        120.0,
        description="Seconds that a sweep waits for a gateway or a store that is away before it ends. With --follow it"
        " waits for ever.",
    )
    verdict_within_s: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="Seconds that a sweep waits for the verdict of an image: it is judged after all those that somebody"
        " waits for.",
    )
    follow_every_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds between two looks for new objects with --follow."
    )
    s3_endpoint: str | None = Field(
        None, description="Address of an S3-compatible store, such as https://s3.example. Default: AWS_ENDPOINT_URL."
    )
    s3_key_id: SecretStr | None = Field(
        None, description="Its access key's id. Default: what AWS_ACCESS_KEY_ID or ~/.aws says."
    )
    s3_secret: SecretStr | None = Field(
        None, description="Its secret access key. Default: what AWS_SECRET_ACCESS_KEY or ~/.aws says."
    )
    sftp_password: SecretStr | None = Field(
        None, description="Password at an SFTP server. Default: none; the SSH agent's keys, or those in ~/.ssh."
    )
    sftp_identity: Path | None = Field(None, description="Private key file for an SFTP server.")
    sftp_known_hosts: Path | None = Field(
        None, description="File of the host keys that SFTP servers are known by. Default: ~/.ssh/known_hosts."
    )
