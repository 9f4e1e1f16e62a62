"""Where images came from, and who is to be forgotten."""

import hashlib
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.messages.base import Domain, EpochMs, Message, TenantName


class OriginMethod(StrEnum):
    """How an origin became known.

    relay: seen passing between the software and pict-rs; database: read from the software's own tables; http: told
    us through POST /v1/origins.
    """

    RELAY = "relay"
    DATABASE = "database"
    HTTP = "http"


class Confidence(StrEnum):
    """How sure one fact of an origin is.

    certain: the software's own record of exactly this image; likely: it fits and nothing else does, but a step of the
    reasoning is ours (matched by time, an address of several uses); possible: one of several that fit.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Place(StrEnum):
    """What an image was put in; proxied and imported: fetched for some place that is not known (yet)."""

    UPLOAD = "upload"
    PROXIED = "proxied"
    IMPORTED = "imported"
    POST_LINK = "post-link"
    POST_THUMBNAIL = "post-thumbnail"
    POST_TEXT = "post-text"
    COMMENT = "comment"
    MESSAGE = "message"
    AVATAR = "avatar"
    BANNER = "banner"
    ICON = "icon"
    UNKNOWN = "unknown"


class OriginAuthor(BaseModel):
    """Who put an image where it is; never by name.

    `pseudonym` is an HMAC of the actor's id under the key `key_id` (see `schemas.pseudonyms`), no bytes where only the
    instance is known. Pseudonyms of two keys cannot be compared.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance: Domain
    pseudonym: Annotated[bytes, Field(max_length=32)] = b""
    key_id: Annotated[str, Field(max_length=32)] = ""
    confidence: Confidence


class OriginCommunity(BaseModel):
    """The community an image was posted to: its ActivityPub id where that is known, and the instance it lives on."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance: Domain
    actor_id: Annotated[str, Field(max_length=1024)] = ""
    confidence: Confidence


class OriginHost(BaseModel):
    """The host an image was fetched from. It accuses nobody: everybody links to imgur."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    domain: Domain
    confidence: Confidence


class OriginMoment(BaseModel):
    """When an image was put where it is, by the record of whoever says so."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    at: EpochMs
    confidence: Confidence


class OriginObserved(Message):
    """Where an image came from, as far as one observer can tell (topic origins; key: sha256, else url, else alias).

    The image is named by at least one of `sha256`, `alias` (pict-rs's name for a stored file) and `url` (the address it
    was fetched from, or is embedded as). A message that bears two of them also says that both name the same image:
    readers join through that. An unknown fact is None; it is never guessed. `post_url` is the ActivityPub id of the
    post or comment that holds the image, "" where there is none or it is not known. Several messages may speak of one
    place: their `origin_id` is the same, and the one with the highest `observed_at` counts (of several, any one, but
    the same in every reading).
    Domains are in the form of `schemas.domains`.
    """

    SCHEMA: ClassVar[str] = "origin-observed"
    tenant: TenantName
    sha256: Annotated[bytes, Field(max_length=32)] = b""
    alias: Annotated[str, Field(max_length=256)] = ""
    url: Annotated[str, Field(max_length=4096)] = ""
    place: Place
    method: OriginMethod
    host: OriginHost | None = None
    author: OriginAuthor | None = None
    community: OriginCommunity | None = None
    moment: OriginMoment | None = None
    post_url: Annotated[str, Field(max_length=2048)] = ""
    observed_at: EpochMs
    observer: str = ""

    @model_validator(mode="after")
    def _names_an_image(self) -> Self:
        if len(self.sha256) not in (0, 32):
            raise ValueError("sha256 has 32 bytes, or none where it is not known")
        if not (self.sha256 or self.alias or self.url):
            raise ValueError("an origin names its image: by sha256, alias or url")
        return self

    @cached_property
    def origin_id(self) -> bytes:
        """16 bytes, the same for every message about the same image in the same place by the same method."""
        author = self.author.pseudonym.hex() if self.author else ""
        image = self.sha256.hex() or self.url or self.alias
        about = "\n".join((self.tenant, image, self.place, self.method, self.post_url, author))
        return hashlib.sha256(about.encode()).digest()[:16]


class ActorForgotten(Message):
    """An actor whose traces are to go (topic origins; key: the pseudonym): those published before it no longer count.

    One for each key that pseudonyms were made with.
    """

    SCHEMA: ClassVar[str] = "actor-forgotten"
    pseudonym: Annotated[bytes, Field(min_length=16, max_length=32)]
    key_id: Annotated[str, Field(min_length=1, max_length=32)]
    forgotten_at: EpochMs
