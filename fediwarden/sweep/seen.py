"""What one run of a sweep has seen: in a file without a future, so that millions of objects need no memory."""

import sqlite3
from types import TracebackType
from typing import Self

from fediwarden.sweep.judging import Answer
from schemas.messages import Decision


class Seen:
    """The answers for bytes, and the versions of objects that are done. A context manager."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None)  # a file that has no name: kill -9 leaves nothing
        self._table.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE answers (sha256 BLOB PRIMARY KEY, accepted, decision, scan_id, answered_by, rules, reason)"
            " WITHOUT ROWID;"
            "CREATE TABLE objects (key TEXT PRIMARY KEY, version TEXT) WITHOUT ROWID"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    def answer(self, sha256: bytes) -> Answer | None:
        """What was answered for these bytes."""
        row = self._table.execute(
            "SELECT accepted, decision, scan_id, answered_by, rules, reason FROM answers WHERE sha256 = ?", (sha256,)
        ).fetchone()
        if row is None:
            return None
        accepted, decision, scan_id, answered_by, rules, reason = row
        names = tuple(rules.split("\n")) if rules else ()
        return Answer(True, bool(accepted), Decision(decision), scan_id, answered_by, names, reason)

    def note_answer(self, sha256: bytes, answer: Answer) -> None:
        """Remember a judgement."""
        of_answer = (answer.accepted, answer.decision.value, answer.scan_id, answer.answered_by)
        self._table.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (sha256, *of_answer, "\n".join(answer.rules), answer.reason),
        )

    def forget_answers(self) -> None:
        """Forget them all."""
        self._table.execute("DELETE FROM answers")

    def is_done(self, key: str, version: str) -> bool:
        """Whether this version of an object was dealt with."""
        row = self._table.execute("SELECT version FROM objects WHERE key = ?", (_id(key),)).fetchone()
        return row is not None and row[0] == version

    def note_done(self, key: str, version: str) -> None:
        """Remember that it was."""
        self._table.execute("INSERT OR REPLACE INTO objects VALUES (?, ?)", (_id(key), version))


def _id(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
