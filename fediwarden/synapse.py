"""A module for Synapse (Matrix): media is judged by a fediwarden gateway before Synapse keeps it.

It runs inside Synapse and imports nothing but Synapse and what Synapse needs: see docs/synapse.md.
"""

import json
import logging
from dataclasses import dataclass
from typing import Any, Literal

from synapse.module_api import NOT_SPAM, ModuleApi, make_deferred_yieldable, run_in_background
from synapse.module_api.errors import Codes, ConfigError
from twisted.internet import reactor
from twisted.web.client import readBody
from twisted.web.http_headers import Headers

logger = logging.getLogger("synapse.modules.fediwarden")

UNREADABLE = 422
_KINDS: dict[str, tuple[type, ...]] = {
    "url": (str,),
    "key": (str,),
    "on_error": (str,),
    "on_unreadable": (str,),
    "timeout_s": (int, float),
    "max_bytes": (int,),
}
_ANSWERS = ("accept", "reject")


@dataclass(frozen=True)
class MediaCheckConfig:
    """The module's `config` in homeserver.yaml.

    `url` is the gateway's address, `key` the tenant's key ("" where the tenant is reached by its network). `on_error`
    says what becomes of media that the gateway did not answer for within `timeout_s` seconds, or that is larger than
    `max_bytes`; `on_unreadable` of what is no image or video: documents, sound, and everything in encrypted rooms.
    """

    url: str
    key: str = ""
    on_error: Literal["accept", "reject"] = "accept"
    on_unreadable: Literal["accept", "reject"] = "accept"
    timeout_s: float = 8.0
    max_bytes: int = 64 << 20


class _TooLarge(Exception):
    """More than is sent to be judged."""


class MediaCheck:
    """Registers itself for local uploads, remote media and previews of links; their thumbnails show the same again."""

    def __init__(self, config: MediaCheckConfig, api: ModuleApi) -> None:
        self._config = config
        self._http = api.http_client
        self._url = config.url.rstrip("/") + "/v1/scans"
        api.register_spam_checker_callbacks(check_media_file_for_spam=self.check)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> MediaCheckConfig:
        """The configuration. Raises Synapse's `ConfigError`, which names the field and the remedy."""
        for name, value in config.items():
            if name not in _KINDS:
                raise ConfigError(f"fediwarden: {name} is not known; there are {', '.join(_KINDS)}")
            if type(value) not in _KINDS[name]:
                raise ConfigError(f"fediwarden: {name} is of the wrong type; see docs/synapse.md")
            if name.startswith("on_") and value not in _ANSWERS:
                raise ConfigError(f"fediwarden: {name} is either accept or reject")
            if name in ("timeout_s", "max_bytes") and value <= 0:
                raise ConfigError(f"fediwarden: {name} is more than 0")
        if not str(config.get("url", "")).startswith(("http://", "https://")):
            raise ConfigError("fediwarden: url is the gateway's address, such as http://127.0.0.1:14051")
        return MediaCheckConfig(**config)

    async def check(self, file: Any, info: Any) -> Any:
        """What Synapse asks before it keeps a file: `NOT_SPAM`, or the error that the client gets."""
        if info.thumbnail is not None:
            return NOT_SPAM
        try:
            accepted, why = await self._ask(await self._read(file))
        except Exception as error:  # noqa: BLE001  # the edge: whatever keeps us from asking, Synapse gets an answer
            accepted, why = self._config.on_error == "accept", f"not judged: {type(error).__name__}: {error}"
            logger.warning("%s, %s (on_error)", why, "accepted" if accepted else "refused")
        if accepted:
            return NOT_SPAM
        logger.info("media %s of %s refused: %s", info.file_id, info.server_name or "a local user", why)
        return Codes.FORBIDDEN

    async def _read(self, file: Any) -> bytes:
        data = bytearray()

        def take(chunk: bytes) -> None:
            data.extend(chunk)
            if len(data) > self._config.max_bytes:
                raise _TooLarge(f"larger than max_bytes, {self._config.max_bytes}")

        await file.write_chunks_to(take)
        return bytes(data)

    async def _ask(self, data: bytes) -> tuple[bool, str]:
        """Whether the gateway accepts the file, and why. Raises whatever keeps it from an answer in time."""
        asking = run_in_background(self._post, data)
        asking.addTimeout(self._config.timeout_s, reactor)
        status, body = await make_deferred_yieldable(asking)
        answer = json.loads(body)
        if status == UNREADABLE:
            return self._config.on_unreadable == "accept", "it is no image or video"
        if status != 200:
            raise RuntimeError(f"the gateway answers {status}: {answer['error']['message']}")
        why = f"{answer['decision']}, answered by {answer['answered_by']}, scan {answer['scan_id']}"
        return bool(answer["accepted"]), why

    async def _post(self, data: bytes) -> tuple[int, bytes]:
        headers = Headers({"Content-Type": ["application/octet-stream"]})
        if self._config.key:
            headers.addRawHeader("Authorization", f"Bearer {self._config.key}")
        response = await self._http.request("POST", self._url, data=data, headers=headers)
        return response.code, await make_deferred_yieldable(readBody(response))
