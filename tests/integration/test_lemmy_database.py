"""Looking origins up in a real PostgreSQL with the tables of Lemmy 0.19 and 1.0."""

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from federation_audit.lemmy.database import LemmyDatabase, Sought
from federation_audit.lemmy.errors import DatabaseAway, GrantMissing, NotLemmy
from federation_audit.lemmy.places import make_origin
from federation_audit.lemmy.queries import LINKS_MOST, Row
from federation_audit.lemmy.settings import LemmySettings
from schemas.clock import now_ms
from schemas.messages import Confidence, OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from tests.lemmy import VERSIONS, Lemmy, grants_of, schema_of
from tests.postgres import Postgres

PASSWORD = "a password of the tests"
URL = "https://img.example/a%20(1).png?x=1&y=ü"
ENCODED = "https%3A%2F%2Fimg.example%2Fa%2520%281%29.png%3Fx%3D1%26y%3D%C3%BC"
ALIAS = "0e2f3c53-5be3-4e0f-92a7-0c8d3d2f1a11.webp"

_numbers = count(1)


class Home:
    """A Lemmy, its database as the superuser and as the role that is documented, and what is found in it."""

    def __init__(self, postgres: Postgres, version: str, folder: Path) -> None:
        self.postgres = postgres
        self.name = postgres.make_database(schema_of(version))
        self.role = f"reader{next(_numbers)}"
        self.lemmy = Lemmy(postgres.server.url(self.name), version)
        self.lemmy.execute(f"CREATE ROLE {self.role} LOGIN PASSWORD '{PASSWORD}'")
        self.lemmy.execute(grants_of(version, self.role))
        self.pseudonyms = Pseudonyms.open(folder / "actors.json")

    @property
    def url(self) -> str:
        return self.postgres.server.url(self.name, user=self.role, password=PASSWORD.replace(" ", "%20"))

    def database(self, **settings: object) -> LemmyDatabase:
        return LemmyDatabase("default", self.url, LemmySettings.model_validate(settings))

    def find(self, *images: Sought, sweep: bool = False, **settings: object) -> list[Row]:
        async def look() -> list[Row]:
            database = self.database(**settings)
            try:
                return await (database.sweep(images) if sweep else database.look(images))
            finally:
                await database.close()

        return asyncio.run(look())

    def origins(self, image: Sought, **options: bool) -> list[OriginObserved]:
        return [
            make_origin(
                row,
                tenant="default",
                sha256=b"",
                alias=image.alias,
                url=image.url,
                received_at=now_ms(),
                observed_at=now_ms(),
                observer="test",
                pseudonyms=self.pseudonyms,
            )
            for row in self.find(image, **options)
        ]

    def pseudonym(self, actor_id: str) -> bytes:
        pseudonym = self.pseudonyms.pseudonym(actor_id)
        assert pseudonym is not None
        return pseudonym.value


@pytest.fixture(params=VERSIONS)
def home(postgres: Postgres, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    home = Home(postgres, request.param, tmp_path)
    yield home
    home.lemmy.close()


def test_a_post_that_links_to_the_image_names_its_author_and_community(home: Home) -> None:
    lemmy = home.lemmy
    mallory = lemmy.person("mallory", "bad.example")
    _, ap_id = lemmy.post(mallory, lemmy.community("cats", "big.example"), url=URL)
    lemmy.post(mallory, lemmy.community("dogs"), url=URL + "2")
    (origin,) = home.origins(Sought("", URL))
    assert (origin.place, origin.post_url) == (Place.POST_LINK, ap_id)
    assert origin.author is not None and origin.community is not None and origin.moment is not None
    assert (origin.author.instance, origin.author.confidence) == ("bad.example", Confidence.CERTAIN)
    assert origin.author.pseudonym == home.pseudonym("https://bad.example/u/mallory")
    assert origin.community.instance == "big.example"
    assert origin.community.actor_id == "https://big.example/c/cats"
    assert abs(origin.moment.at - now_ms()) < 600_000
    assert origin.moment.confidence is Confidence.LIKELY, "the other instance's clock"
    assert origin.host is not None and origin.host.domain == "img.example"


def test_a_link_that_lemmy_rewrote_for_its_proxy_is_the_same_link(home: Home) -> None:
    lemmy = home.lemmy
    mallory, cats = lemmy.person("mallory"), lemmy.community("cats")
    paths = ("api/v3/image_proxy", "api/v4/image/proxy", "api/v4/image_proxy")
    posts = {lemmy.post(mallory, cats, url=f"{lemmy.HOME}/{path}?url={ENCODED}")[1] for path in paths}
    assert {origin.post_url for origin in home.origins(Sought("", URL))} == posts


def test_an_upload_names_its_uploader_and_when(home: Home) -> None:
    lemmy = home.lemmy
    lemmy.upload(ALIAS, lemmy.person("alice"))
    (origin,) = home.origins(Sought(ALIAS, ""))
    assert origin.place is Place.UPLOAD and origin.community is None and origin.host is None
    assert origin.author is not None and origin.moment is not None
    assert origin.author.pseudonym == home.pseudonym(f"{lemmy.HOME}/u/alice")
    assert origin.moment.confidence is Confidence.CERTAIN, "our own clock"


def test_a_post_that_shows_an_upload_is_found_beside_the_upload(home: Home) -> None:
    lemmy = home.lemmy
    alice = lemmy.person("alice")
    lemmy.upload(ALIAS, alice)
    _, ap_id = lemmy.post(alice, lemmy.community("cats"), url=lemmy.stored(ALIAS))
    found = {(origin.place, origin.post_url) for origin in home.origins(Sought(ALIAS, ""))}
    assert found == {(Place.UPLOAD, ""), (Place.POST_LINK, ap_id)}


def test_a_generated_thumbnail_is_the_posts(home: Home) -> None:
    lemmy = home.lemmy
    mallory = lemmy.person("mallory", "bad.example")
    number, ap_id = lemmy.post(mallory, lemmy.community("cats"), url=URL, thumbnail_url=lemmy.stored(ALIAS))
    lemmy.upload(ALIAS, mallory, thumbnail_for=number)
    origins = home.origins(Sought(ALIAS, ""))
    assert {(origin.place, origin.post_url) for origin in origins} == {(Place.POST_THUMBNAIL, ap_id)}
    assert {origin.author.instance for origin in origins if origin.author} == {"bad.example"}
    assert len({origin.origin_id for origin in origins}) == 1


def test_a_remote_thumbnail_is_found_as_it_is_and_behind_the_proxy(home: Home) -> None:
    lemmy = home.lemmy
    mallory, cats = lemmy.person("mallory", "bad.example"), lemmy.community("cats")
    written = (URL, lemmy.proxied(ENCODED), lemmy.proxied(ENCODED) + "&max_size=512")
    posts = {lemmy.post(mallory, cats, thumbnail_url=thumbnail)[1] for thumbnail in written}
    assert {origin.post_url for origin in home.origins(Sought("", URL))} == posts


def test_texts_that_embed_the_image_are_found(home: Home) -> None:
    lemmy = home.lemmy
    alice, mallory = lemmy.person("alice"), lemmy.person("mallory", "bad.example")
    number, post = lemmy.post(mallory, lemmy.community("cats"), body=f"Look: ![x]({lemmy.proxied(ENCODED)})")
    comment = lemmy.comment(mallory, number, f"![a cat]({lemmy.stored(ALIAS)}?format=webp&thumbnail=256)")
    message = lemmy.message(mallory, alice, f"see {lemmy.stored(ALIAS)}.")
    (in_post,) = home.origins(Sought("", URL))
    assert (in_post.place, in_post.post_url) == (Place.POST_TEXT, post)
    assert in_post.author is not None and in_post.author.confidence is Confidence.CERTAIN, "Lemmy proxies images alone"
    found = home.origins(Sought(ALIAS, ""))
    assert {(origin.place, origin.post_url) for origin in found} == {(Place.COMMENT, comment), (Place.MESSAGE, message)}
    assert {origin.community is None for origin in found if origin.place is Place.MESSAGE} == {True}


def test_a_text_that_merely_holds_a_remote_address_may_only_link_to_it(home: Home) -> None:
    lemmy = home.lemmy
    number, _ = lemmy.post(lemmy.person("alice"), lemmy.community("cats"))
    lemmy.comment(lemmy.person("bob"), number, "as seen at https://img.example/b.png, and https://img.example/b.png2")
    (origin,) = home.origins(Sought("", "https://img.example/b.png"))
    assert origin.author is not None and origin.author.confidence is Confidence.LIKELY
    assert origin.community is not None and origin.community.confidence is Confidence.LIKELY


def test_a_longer_address_is_another_image(home: Home) -> None:
    lemmy = home.lemmy
    number, _ = lemmy.post(lemmy.person("alice"), lemmy.community("cats"), body="![](https://img.example/b.png?size=2)")
    lemmy.comment(lemmy.person("bob"), number, "![](https://img.example/b.png/c) https://img.example/b.pn")
    assert home.origins(Sought("", "https://img.example/b.png")) == []


def test_avatars_banners_and_icons_are_found_by_the_sweep_alone(home: Home) -> None:
    lemmy = home.lemmy
    lemmy.person("mallory", "bad.example", avatar=lemmy.proxied(ENCODED))
    lemmy.person("trent", "bad.example", banner=URL)
    cats = lemmy.community("cats", "big.example", icon=URL)
    dogs = lemmy.community("dogs", "big.example", banner=URL)
    site = lemmy.insert(
        "site",
        name="Bad",
        instance_id=lemmy.instance("bad.example"),
        icon=URL,
        **{"actor_id" if lemmy.version == "0.19" else "ap_id": "https://bad.example/"},
    )
    assert site
    assert home.origins(Sought("", URL)) == []
    origins = home.origins(Sought("", URL), sweep=True)
    found = {(origin.place, origin.author and origin.author.pseudonym, origin.post_url) for origin in origins}
    assert found == {
        (Place.AVATAR, home.pseudonym("https://bad.example/u/mallory"), ""),
        (Place.BANNER, home.pseudonym("https://bad.example/u/trent"), ""),
        (Place.ICON, None, cats.actor_id),
        (Place.BANNER, None, dogs.actor_id),
        (Place.ICON, b"", "https://bad.example/"),
    }
    assert len({origin.origin_id for origin in origins}) == len(found), "each a place of its own"


def test_many_images_are_looked_for_at_once_and_told_apart(home: Home) -> None:
    lemmy = home.lemmy
    alice, cats = lemmy.person("alice"), lemmy.community("cats")
    urls = [f"https://img.example/{number}.png" for number in range(200)]
    posts = {number: lemmy.post(alice, cats, url=urls[number])[1] for number in (3, 77, 199)}
    rows = home.find(*(Sought("", url) for url in urls))
    assert {row.number: row.post_url for row in rows} == posts


def test_an_address_that_everybody_posts_gives_some_of_its_posts(home: Home) -> None:
    lemmy = home.lemmy
    alice, cats = lemmy.person("alice"), lemmy.community("cats")
    for _ in range(LINKS_MOST + 5):
        lemmy.post(alice, cats, url=URL)
    assert len(home.find(Sought("", URL))) == LINKS_MOST


def test_texts_older_than_the_newest_rows_are_not_looked_through(home: Home) -> None:
    lemmy = home.lemmy
    number, _ = lemmy.post(lemmy.person("alice"), lemmy.community("cats"))
    lemmy.comment(lemmy.person("bob"), number, f"![]({URL})")
    for text in ("one", "two"):
        lemmy.comment(lemmy.person(text), number, text)
    assert len(home.find(Sought("", URL), recent_rows=3)) == 1
    assert home.find(Sought("", URL), recent_rows=2) == []


def test_names_that_mean_something_to_sql_or_to_a_pattern_are_only_names(home: Home) -> None:
    lemmy = home.lemmy
    odd = "https://img.example/%_'\";DROP TABLE post;--.png"
    _, ap_id = lemmy.post(lemmy.person("alice"), lemmy.community("cats"), url=odd)
    images = [Sought("", odd), Sought("%", "%"), Sought("a\x00b", "https://x.example/\x00"), Sought("_" * 300, "")]
    assert [(row.number, row.post_url) for row in home.find(*images)] == [(0, ap_id)]


def test_domains_of_every_kind_are_one_form(home: Home) -> None:
    lemmy = home.lemmy
    onion = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx.onion"
    domains = {
        "BÜCHER.example": "xn--bcher-kva.example",
        "lemmy-alpha:8541": "lemmy-alpha",
        "203.0.113.7": "203.0.113.7",
        "[2001:DB8::1]:8536": "[2001:db8::1]",
        onion: onion,
    }
    for domain in domains:
        lemmy.post(lemmy.person("m", domain), lemmy.community("cats", domain), url=URL)
    origins = home.origins(Sought("", URL))
    assert [origin.author.instance for origin in origins if origin.author] == list(domains.values())
    assert [origin.community.instance for origin in origins if origin.community] == list(domains.values())


def test_hostile_rows_stay_unknown_where_they_say_nothing(home: Home) -> None:
    lemmy = home.lemmy
    hostile = "<script>alert(1)</script>\u202e" + "x" * 200
    mallory = lemmy.person(hostile, "bad.example", actor_id="https://bad.example/u/\u202eevil", bio="x" * 10_000)
    late = "infinity" if lemmy.version == "0.19" else "2999-01-01"
    lemmy.post(mallory, lemmy.community("cats"), url=URL, ap_id="javascript:alert(1)", published=late)
    (origin,) = home.origins(Sought("", URL))
    assert origin.post_url == "" and origin.moment is None
    assert origin.author is not None
    assert (origin.author.instance, origin.author.pseudonym) == ("bad.example", b"")
    assert "script" not in repr(origin)


def test_the_role_of_the_documentation_reads_no_secret_and_writes_nothing(home: Home) -> None:
    secrets = ("email FROM local_user", "password_encrypted FROM local_user", "private_key FROM person", "* FROM post")
    with psycopg.connect(home.url, autocommit=True) as connection:
        for secret in secrets:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {secret}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM post")


def test_a_connection_writes_nothing_even_as_the_owner(home: Home) -> None:
    async def write() -> None:
        database = LemmyDatabase("default", home.postgres.server.url(home.name), LemmySettings())
        await database.home()
        assert database._connection is not None
        try:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await database._connection.execute("DELETE FROM post")
        finally:
            await database.close()

    asyncio.run(write())


def test_a_missing_grant_is_named(home: Home) -> None:
    home.lemmy.execute(f"REVOKE SELECT (body) ON post FROM {home.role}")
    with pytest.raises(GrantMissing) as caught:
        home.find(Sought("", URL))
    assert caught.value.statements == (f'GRANT SELECT (body) ON post TO "{home.role}";',)
    home.lemmy.execute(caught.value.statements[0])
    assert home.find(Sought("", URL)) == []


def test_a_grant_that_is_taken_away_while_we_are_connected_is_named_and_may_come_back(home: Home) -> None:
    lemmy = home.lemmy
    lemmy.post(lemmy.person("alice"), lemmy.community("cats"), url=URL)

    async def look() -> None:
        database = home.database()
        assert len(await database.look([Sought("", URL)])) == 1
        lemmy.execute(f"REVOKE SELECT (content) ON comment FROM {home.role}")
        with pytest.raises(GrantMissing, match=r"GRANT SELECT \(content\) ON comment"):
            await database.look([Sought("", URL)])
        lemmy.execute(f"GRANT SELECT (content) ON comment TO {home.role}")
        assert len(await database.look([Sought("", URL)])) == 1
        await database.close()

    asyncio.run(look())


def test_private_messages_need_no_grant_where_they_are_not_looked_for(home: Home) -> None:
    home.lemmy.execute(f"REVOKE ALL ON private_message FROM {home.role}")
    with pytest.raises(GrantMissing, match=r"lemmy\.private_messages = false"):
        home.find(Sought("", URL))
    assert home.find(Sought("", URL), private_messages=False) == []


def test_a_database_of_something_else_is_refused(postgres: Postgres) -> None:
    name = postgres.make_database("CREATE TABLE post (id int); CREATE TABLE person (id int)")
    database = LemmyDatabase("default", postgres.server.url(name), LemmySettings())
    with pytest.raises(NotLemmy, match="the table post has no column creator_id"):
        asyncio.run(database.home())


def test_a_lemmy_that_is_upgraded_meanwhile_is_looked_at_anew(postgres: Postgres, tmp_path: Path) -> None:
    home = Home(postgres, "0.19", tmp_path)
    lemmy = home.lemmy
    lemmy.post(lemmy.person("alice"), lemmy.community("cats"), url=URL)

    async def look() -> None:
        database = home.database()
        assert (await database.home()).shape.version == "0.19"
        for table in ("person", "community", "site"):
            lemmy.execute(f"ALTER TABLE {table} RENAME actor_id TO ap_id")
        for table in ("post", "comment", "private_message", "local_image"):
            lemmy.execute(f"ALTER TABLE {table} RENAME published TO published_at")
        with pytest.raises((DatabaseAway, NotLemmy)):
            await database.look([Sought("", URL)])
        lemmy.execute(
            "ALTER TABLE local_image ADD person_id int, ADD thumbnail_for_post_id int, DROP local_user_id;"
            f"GRANT SELECT (person_id, thumbnail_for_post_id) ON local_image TO {home.role}"
        )
        assert len(await database.look([Sought("", URL)])) == 1
        assert (await database.home()).shape.version == "1.0"
        await database.close()

    asyncio.run(look())
    lemmy.close()


def test_a_statement_that_takes_too_long_is_given_up(home: Home) -> None:
    lemmy = home.lemmy
    lemmy.post(lemmy.person("alice"), lemmy.community("cats"), url=URL)
    lemmy.execute("BEGIN; LOCK TABLE comment")  # as a migration does
    assert len(home.find(Sought("", URL), statement_timeout_s=0.5)) == 1, "texts are left out, links are there"
    lemmy.execute("LOCK TABLE post")
    with pytest.raises(DatabaseAway):
        home.find(Sought("", URL), statement_timeout_s=0.5)
    lemmy.execute("ROLLBACK")
    assert len(home.find(Sought("", URL))) == 1


def test_a_hostile_text_does_not_keep_the_database_busy(home: Home) -> None:
    lemmy = home.lemmy
    alice, cats = lemmy.person("alice"), lemmy.community("cats")
    for text in ("![" * 25_000, "http://(" * 6_000, "https://" + "(" * 50_000, "http://a(" + ")(" * 25_000):
        lemmy.post(alice, cats, body="http " + text)
    _, ap_id = lemmy.post(alice, cats, body=f"![]({lemmy.proxied(ENCODED)})")
    assert [row.post_url for row in home.find(Sought("", URL))] == [ap_id], "the search was not given up"
