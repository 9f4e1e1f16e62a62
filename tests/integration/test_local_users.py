"""Whose number a token names, from a real PostgreSQL with the tables of Lemmy 0.19 and 1.0."""

import asyncio
from pathlib import Path

import pytest

from federation_audit.lemmy.database import LemmyDatabase, Sought
from federation_audit.lemmy.local_users import LocalUsers
from federation_audit.lemmy.settings import LemmySettings
from gateway.relay.uploaders import Uploaders
from schemas.messages import Confidence, OriginAuthor, OriginMethod, OriginObserved, Place
from tests.integration.test_lemmy_database import Home
from tests.lemmy import VERSIONS
from tests.postgres import Postgres


@pytest.mark.parametrize("version", VERSIONS)
def test_relay_and_database_name_an_uploader_alike(postgres: Postgres, version: str, tmp_path: Path) -> None:
    home = Home(postgres, version, tmp_path)
    home.lemmy.person("somebody")
    home.lemmy.person("remote", "far.example")
    alice = home.lemmy.person("Alice")
    home.lemmy.upload("a.webp", alice)
    assert alice.local_user != alice.number, "or the wrong id would do as well"

    async def scenario() -> OriginObserved:
        database = home.database()
        users = LocalUsers(database)
        assert await users.actor_of(str(alice.local_user)) == alice.actor_id
        for nobody in ("999999", "0", "-1", "1.5", "x", "", "99999999999", "99999999999999999999", "١"):
            assert await users.actor_of(nobody) is None
        by_number = home.pseudonyms.pseudonym(f"local-user:home.example:{alice.local_user}")
        assert by_number is not None
        uploaders = Uploaders(home.pseudonyms, users.actor_of)
        uploaders.note(by_number, str(alice.local_user))
        author = OriginAuthor(
            instance="home.example",
            pseudonym=by_number.value,
            key_id=by_number.key_id,
            confidence=Confidence.CERTAIN,
        )
        seen = OriginObserved(
            tenant="default",
            alias="a.webp",
            place=Place.UPLOAD,
            method=OriginMethod.RELAY,
            author=author,
            observed_at=1,
        )
        settled = await uploaders.settle(seen)
        await database.close()
        return settled

    settled = asyncio.run(scenario())
    (found,) = home.origins(Sought("a.webp", ""))
    assert settled.author == found.author
    home.lemmy.close()


def test_a_database_that_is_away_is_left_alone_for_a_while(postgres: Postgres, tmp_path: Path) -> None:
    home = Home(postgres, "0.19", tmp_path)
    alice = home.lemmy.person("alice")
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        asked = 0

        class Counting(LemmyDatabase):
            async def actor_of(self, local_user: int) -> str | None:
                nonlocal asked
                asked += 1
                return await super().actor_of(local_user)

        database = Counting("default", home.url, LemmySettings())
        users = LocalUsers(database, clock=lambda: now)
        home.lemmy.execute(f"REVOKE CONNECT ON DATABASE {home.name} FROM PUBLIC")
        found = await asyncio.gather(*(users.actor_of(str(alice.local_user)) for _ in range(50)))
        assert found == [None] * 50
        assert asked == 1
        home.lemmy.execute(f"GRANT CONNECT ON DATABASE {home.name} TO PUBLIC")
        now = 29.0
        assert await users.actor_of(str(alice.local_user)) is None
        now = 31.0
        assert await users.actor_of(str(alice.local_user)) == alice.actor_id
        assert asked == 2
        await database.close()

    asyncio.run(scenario())
    home.lemmy.close()
