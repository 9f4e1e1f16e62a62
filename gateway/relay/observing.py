"""Looking on while an answer passes: the hash of a whole stored file, or a small JSON answer. Nothing else is kept."""

import hashlib
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.relay.targets import Aim, Way
from schemas.clock import now_ms
from schemas.messages import OriginAuthor

JSON_MOST_BYTES = 256 << 10
REJECTED_CODE = "failed-external-validation"


class StoredFile(BaseModel):
    """A file in pict-rs's answer to an upload or a download."""

    model_config = ConfigDict(frozen=True)
    file: str


class Backgrounded(BaseModel):
    """An upload or download that pict-rs goes on with by itself."""

    model_config = ConfigDict(frozen=True)
    upload_id: str


class JsonAnswer(BaseModel):
    """What we read of pict-rs's JSON answers."""

    model_config = ConfigDict(frozen=True)
    code: str = ""
    files: tuple[StoredFile, ...] = ()
    uploads: tuple[Backgrounded, ...] = ()


class Seen(BaseModel):
    """An exchange that is over: what it was after, who uploaded, how pict-rs answered, between when and when (ms).

    `sha256` is the hash of the stored file where its whole body has passed, `answer` what a JSON answer said.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    aim: Aim
    author: OriginAuthor | None
    status: int
    sha256: bytes
    answer: JsonAnswer
    began_at: int
    ended_at: int

    @property
    def rejected(self) -> bool:
        """Whether pict-rs says that its validator refused the file."""
        return self.answer.code == REJECTED_CODE


class Watch:
    """One exchange under observation; `report` gets what was seen when, and if, the answer has passed whole."""

    def __init__(self, aim: Aim, author: OriginAuthor | None, report: Callable[[Seen], None]) -> None:
        self._aim = aim
        self._author = author
        self._report = report
        self._began_at = now_ms()
        self._ended_at = 0
        self._status = 0
        self._hash: hashlib._Hash | None = None
        self._json: bytearray | None = None

    @property
    def worth_finishing(self) -> bool:
        """Whether pict-rs's answer is read to its end although nobody waits for it."""
        return self._aim.way is Way.PROXY

    def note_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The answer's head is here."""
        self._status = status
        self._ended_at = now_ms()
        named = {name.lower(): value for name, value in headers}
        if b"content-encoding" in named:
            return
        if named.get(b"content-type", b"").lower().startswith(b"application/json"):
            self._json = bytearray()
        elif self._aim.original and status == 200:
            self._hash = hashlib.sha256()

    def note_piece(self, piece: bytes | bytearray) -> None:
        """A piece of the answer's body passes."""
        if self._hash is not None:
            self._hash.update(piece)
        elif self._json is not None:
            self._json += piece
            if len(self._json) > JSON_MOST_BYTES:
                self._json = None

    def note_end(self) -> None:
        """The answer has passed whole."""
        self._report(
            Seen(
                aim=self._aim,
                author=self._author,
                status=self._status,
                sha256=b"" if self._hash is None else self._hash.digest(),
                answer=self._read_json(),
                began_at=self._began_at,
                ended_at=self._ended_at,
            )
        )

    def _read_json(self) -> JsonAnswer:
        if self._json:
            try:
                return JsonAnswer.model_validate_json(bytes(self._json))
            except ValidationError:
                pass  # an answer of another pict-rs, or of none: nothing is learned
        return JsonAnswer()
