"""One person is one actor, whether seen by the token or by the database."""

import asyncio
from pathlib import Path

from gateway.relay.uploaders import Uploaders
from schemas.messages import Confidence, OriginAuthor, OriginMethod, OriginObserved, Place
from schemas.pseudonyms import Pseudonym, Pseudonyms

ALICE = "https://lemmy.example/u/alice"


def origin(pseudonym: Pseudonym | None) -> OriginObserved:
    author = (
        OriginAuthor(instance="lemmy.example", confidence=Confidence.LIKELY)
        if pseudonym is None
        else OriginAuthor(
            instance="lemmy.example",
            pseudonym=pseudonym.value,
            key_id=pseudonym.key_id,
            confidence=Confidence.CERTAIN,
        )
    )
    return OriginObserved(
        tenant="default", alias="a.png", place=Place.UPLOAD, method=OriginMethod.RELAY, author=author, observed_at=1
    )


class Database:
    """What LocalUsers answers."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {"17": ALICE}
        self.asked: list[str] = []

    async def actor_of(self, number: str) -> str | None:
        self.asked.append(number)
        return self.answers.get(number)


def test_the_uploader_becomes_the_author_whom_the_database_knows_and_is_asked_for_once(tmp_path: Path) -> None:
    pseudonyms, database = Pseudonyms.open(tmp_path / "actors.json"), Database()
    uploaders = Uploaders(pseudonyms, database.actor_of)
    by_number = pseudonyms.pseudonym("local-user:lemmy.example:17")
    assert by_number is not None
    uploaders.note(by_number, "17")

    async def scenario() -> list[OriginObserved]:
        return [await uploaders.settle(origin(by_number)) for _ in range(3)]

    settled = asyncio.run(scenario())
    expected = pseudonyms.pseudonym(ALICE)
    assert expected is not None
    for each in settled:
        assert each.author is not None
        assert (each.author.pseudonym, each.author.key_id) == (expected.value, expected.key_id)
        assert (each.author.instance, each.author.confidence) == ("lemmy.example", Confidence.CERTAIN)
        assert each.origin_id == origin(expected).origin_id
    assert database.asked == ["17"]
    uploaders.note(by_number, "17")
    assert not uploaders._numbers  # the number is not kept beyond that


def test_it_stays_under_the_key_of_the_quarter_in_which_the_image_came(tmp_path: Path) -> None:
    pseudonyms, database = Pseudonyms.open(tmp_path / "actors.json"), Database()
    uploaders = Uploaders(pseudonyms, database.actor_of)
    later_key = pseudonyms.key_ids[1]
    by_number = next(p for p in pseudonyms.every("local-user:lemmy.example:17") if p.key_id == later_key)
    uploaders.note(by_number, "17")
    settled = asyncio.run(uploaders.settle(origin(by_number)))
    assert settled.author is not None
    assert Pseudonym(settled.author.key_id, settled.author.pseudonym) in pseudonyms.every(ALICE)
    assert settled.author.key_id == later_key


def test_what_is_not_known_stays_as_it_is_and_is_asked_for_again(tmp_path: Path) -> None:
    pseudonyms, database = Pseudonyms.open(tmp_path / "actors.json"), Database()
    uploaders = Uploaders(pseudonyms, database.actor_of, most=2)
    database.answers.clear()
    by_number = pseudonyms.pseudonym("local-user:lemmy.example:17")
    assert by_number is not None
    uploaders.note(by_number, "17")
    for each in (origin(by_number), origin(None), origin(pseudonyms.pseudonym("never noted"))):
        assert asyncio.run(uploaders.settle(each)) == each
    assert database.asked == ["17"]
    database.answers["17"] = ALICE
    assert asyncio.run(uploaders.settle(origin(by_number))) != origin(by_number)
    for number in ("1", "2", "3"):
        named = pseudonyms.pseudonym(f"local-user:lemmy.example:{number}")
        assert named is not None
        uploaders.note(named, number)
    assert list(uploaders._numbers.values()) == ["2", "3"]
