"""One connection to Lemmy's database, that reads a little and writes nothing."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import sql

from federation_audit.lemmy import queries
from federation_audit.lemmy.addresses import Form, forms_of
from federation_audit.lemmy.errors import DatabaseAway, GrantMissing, LemmyDatabaseError, NotLemmy
from federation_audit.lemmy.queries import Row
from federation_audit.lemmy.settings import LemmySettings
from federation_audit.lemmy.shape import Shape, read_shape

log = structlog.get_logger("federation_audit.lemmy")

_CONNECT_WITHIN_S = 10
_ANSWER_LATE_S = 10.0
_CLOSE_WITHIN_S = 5.0
_NAME = "fediwarden"
_KEEPALIVE_S = 10
_TEXT_MOST = 4096

# The planner must not take a whole table for small or for cheaper than its statistics say: what has an index is asked
# by it. (The sweep, which has none, switches it on again.) Statements are planned anew each time, for pgbouncer's sake.
_SESSION = """
SET default_transaction_read_only = on;
SET statement_timeout = {timeout};
SET lock_timeout = 1000;
SET idle_in_transaction_session_timeout = 60000;
SET enable_seqscan = off;
SET jit = off
"""


@dataclass(frozen=True, slots=True)
class Sought:
    """An image to look for, by pict-rs's name for its file and by the address it was fetched from; "" is not known."""

    alias: str
    url: str


@dataclass(frozen=True, slots=True)
class Home:
    """What this Lemmy is: the shape of its tables, and its base address, "https://example.org"."""

    shape: Shape
    base: str


class LemmyDatabase:
    """The database of one tenant's Lemmy. Connects when it is asked, and again after every failure.

    `url` is libpq's connection string. There is one connection at most, for one question at a time.
    """

    def __init__(self, tenant: str, url: str, settings: LemmySettings) -> None:
        self._tenant = tenant
        self._url = url
        self._settings = settings
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._home: Home | None = None
        self._asking = asyncio.Lock()

    async def home(self) -> Home:
        """What this Lemmy is. Raises `LemmyDatabaseError`."""
        async with self._asking, self._faults_named():
            return (await self._connect())[1]

    async def look(self, images: Sequence[Sought]) -> list[Row]:
        """Where `images` are posted, uploaded or written of; a row's number is the image's index.

        A search through recent texts or thumbnails that takes longer than its time-out is left out, with a warning.
        Raises `LemmyDatabaseError`.
        """
        async with self._asking, self._faults_named():
            connection, home = await self._connect()
            parameters = self._parameters(images, home.base)
            rows = await self._ask(connection, queries.links(home.shape), parameters)
            rows += await self._ask(connection, queries.uploads(home.shape), parameters)
            for statement in self._recent(home.shape):
                rows += await self._ask_in_time(connection, statement, parameters)
            return list(dict.fromkeys(rows))

    async def sweep(self, images: Sequence[Sought]) -> list[Row]:
        """Whose avatar, banner or icon `images` are; otherwise as `look`. It reads whole tables."""
        async with self._asking, self._faults_named():
            connection, home = await self._connect()
            parameters = self._parameters(images, home.base)
            return list(dict.fromkeys(await self._sweep(connection, home.shape, parameters)))

    async def actor_of(self, local_user: int) -> str | None:
        """The ActivityPub id of our own user of that number; None where there is none. Raises `LemmyDatabaseError`."""
        async with self._asking, self._faults_named():
            connection, home = await self._connect()
            found = await connection.execute(queries.local_user(home.shape), {"local_user": local_user})
            row = await found.fetchone()
            return None if row is None else str(row[0])

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._asking:
            await self._disconnect()

    def _recent(self, shape: Shape) -> Iterable[sql.Composed]:
        yield queries.thumbnails(shape)
        yield queries.post_texts(shape)
        yield queries.comments(shape)
        if self._settings.private_messages:
            yield queries.private_messages(shape)

    def _parameters(self, images: Sequence[Sought], base: str) -> dict[str, object]:
        """PostgreSQL takes no NUL in a text; what holds one cannot be in its tables either."""
        forms: list[tuple[int, Form]] = []
        aliases: list[tuple[int, str]] = []
        for number, image in enumerate(images):
            known = Sought(*(part if _is_askable(part) else "" for part in (image.alias, image.url)))
            forms += [(number, form) for form in forms_of(base, alias=known.alias, url=known.url)]
            if known.alias:
                aliases.append((number, known.alias))
        return {
            "numbers": [number for number, _ in forms],
            "forms": [form.text for _, form in forms],
            "stored": [form.stored for _, form in forms],
            "exact": [form.exact for _, form in forms],
            "alias_numbers": [number for number, _ in aliases],
            "aliases": [alias for _, alias in aliases],
            "recent": self._settings.recent_rows,
            "most": queries.LINKS_MOST,
            "address": queries.ADDRESS,
        }

    async def _ask(
        self, connection: psycopg.AsyncConnection[Any], statement: sql.Composed, parameters: dict[str, object]
    ) -> list[Row]:
        return [Row(*row) for row in await (await connection.execute(statement, parameters)).fetchall()]

    async def _ask_in_time(
        self, connection: psycopg.AsyncConnection[Any], statement: sql.Composed, parameters: dict[str, object]
    ) -> list[Row]:
        try:
            return await self._ask(connection, statement, parameters)
        except psycopg.errors.QueryCanceled as error:
            log.warning("lemmy_statement_too_slow", tenant=self._tenant, error=str(error).strip())
            return []

    async def _sweep(
        self, connection: psycopg.AsyncConnection[Any], shape: Shape, parameters: dict[str, object]
    ) -> list[Row]:
        rows = []
        for statement in queries.avatars(shape):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = {_ms(self._settings.sweep_timeout_s)}")
                await connection.execute("SET LOCAL enable_seqscan = on")
                try:
                    async with connection.transaction():
                        rows += await self._ask(connection, statement, parameters)
                except psycopg.errors.QueryCanceled as error:
                    log.warning("lemmy_sweep_too_slow", tenant=self._tenant, error=str(error).strip())
        return rows

    async def _connect(self) -> tuple[psycopg.AsyncConnection[Any], Home]:
        if self._connection is not None and self._home is not None:
            return self._connection, self._home
        self._connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=_CONNECT_WITHIN_S,
            application_name=_NAME,
            keepalives=1,
            keepalives_idle=_KEEPALIVE_S,
            keepalives_interval=_KEEPALIVE_S,
            keepalives_count=3,
        )
        connection = self._connection
        await connection.execute(_SESSION.format(timeout=_ms(self._settings.statement_timeout_s)))
        shape = await read_shape(connection, tenant=self._tenant, private_messages=self._settings.private_messages)
        row = await (await connection.execute(queries.home(shape))).fetchone()
        if row is None:
            raise NotLemmy(f"tenants.{self._tenant}.lemmy_database: this Lemmy has not been set up yet")
        self._home = Home(shape, str(row[0]).rstrip("/"))
        log.info("lemmy_database_connected", tenant=self._tenant, lemmy=shape.version)
        return connection, self._home

    @contextlib.asynccontextmanager
    async def _faults_named(self) -> AsyncIterator[None]:
        """What psycopg raises becomes ours; after any failure the next question connects anew."""
        where = f"tenants.{self._tenant}.lemmy_database"
        patience = 10 * self._settings.statement_timeout_s + 6 * self._settings.sweep_timeout_s + _ANSWER_LATE_S
        try:
            async with asyncio.timeout(patience):
                yield
        except psycopg.errors.InsufficientPrivilege as error:
            missing = await self._find_missing(error)
            await self._disconnect()
            raise missing from error
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as error:
            await self._disconnect()
            raise DatabaseAway(
                f"{where}: Lemmy's tables have changed ({_said(error)}); they are looked at anew"
            ) from error
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._disconnect()
            raise DatabaseAway(f"{where}: {_said(error)}") from error
        except (LemmyDatabaseError, asyncio.CancelledError):
            await self._disconnect()
            raise

    async def _find_missing(self, error: psycopg.Error) -> LemmyDatabaseError:
        """Which GRANT has been taken away since we connected."""
        if self._connection is not None:
            try:
                await read_shape(
                    self._connection, tenant=self._tenant, private_messages=self._settings.private_messages
                )
            except LemmyDatabaseError as found:
                return found
            except psycopg.Error:
                pass
        return GrantMissing(f"tenants.{self._tenant}.lemmy_database: {_said(error)}", ())

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._home = None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await connection.close()


def _said(error: BaseException) -> str:
    """A failure in a line; psycopg names host, port, user and database, never the password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _is_askable(text: str) -> bool:
    return "\x00" not in text and len(text) <= _TEXT_MOST and text.isprintable()
