"""How PostgreSQL answers what is asked of a large Lemmy: by index, whatever is asked often."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from federation_audit.lemmy import queries
from federation_audit.lemmy.database import LemmyDatabase, Sought
from federation_audit.lemmy.settings import LemmySettings
from federation_audit.lemmy.shape import V019, V1, Shape
from tests.lemmy import VERSIONS, schema_of
from tests.postgres import Postgres

# A million takes half a minute of CPU for each version: LEMMY_POSTS=1000000. The plans are asked for, not the time.
POSTS = int(os.environ.get("LEMMY_POSTS", "200000"))
SHAPES = {"0.19": V019, "1.0": V1}

# Without the checks of foreign keys, which triple the time; the indexes grow with the rows, as they do at Lemmy's.
ROWS = """
SET session_replication_role = replica;
SET synchronous_commit = off;
INSERT INTO instance (domain) SELECT 'i' || n || '.example' FROM generate_series(1, 2000) n;
INSERT INTO site (name, {ap}, instance_id) VALUES ('Home', 'https://home.example/', 1);
INSERT INTO local_site (site_id) VALUES (1);
INSERT INTO person (name, {ap}, instance_id, local, avatar)
    SELECT 'p' || n, 'https://i.example/u/p' || n, n % 2000 + 1, n % 100 = 0, 'https://a.example/' || n
    FROM generate_series(1, 50000) n;
INSERT INTO local_user (person_id) SELECT n FROM generate_series(100, 50000, 100) n;
INSERT INTO community (name, {ap}, instance_id)
    SELECT 'c' || n, 'https://i.example/c/' || n, n % 2000 + 1 FROM generate_series(1, 5000) n;
INSERT INTO post (creator_id, community_id, ap_id, url, thumbnail_url, body, {published})
    SELECT n % 50000 + 1, n % 5000 + 1, 'https://i.example/post/' || n, 'https://img.example/' || n || '.png',
        'https://img.example/thumb/' || n, CASE WHEN n % 10 = 0 THEN 'text ![](https://img.example/t' || n || ')' END,
        now() - (1000000 - n) * interval '1 minute'
    FROM generate_series(1, {posts}) n;
INSERT INTO comment (creator_id, post_id, ap_id, content)
    SELECT n % 50000 + 1, n, 'https://i.example/comment/' || n, 'a comment https://img.example/c' || n
    FROM generate_series(1, 200000) n;
INSERT INTO private_message (creator_id, recipient_id, ap_id, content)
    SELECT n % 50000 + 1, 1, 'https://i.example/pm/' || n, 'a message https://img.example/m' || n
    FROM generate_series(1, 50000) n;
INSERT INTO local_image ({image}) SELECT 'alias' || n || '.png' {owner} FROM generate_series(1, 100000) n;
ANALYZE;
"""


@pytest.fixture(scope="module", params=VERSIONS)
def large(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[tuple[str, Shape]]:
    """A database with many posts, and the shape of its tables."""
    version = request.param
    shape = SHAPES[version]
    by_person = shape.uploads_by_person
    rows = ROWS.format(
        ap=shape.ap_id,
        published=shape.published,
        posts=POSTS,
        image="pictrs_alias, person_id" if by_person else "pictrs_alias, pictrs_delete_token, local_user_id",
        owner=", n % 50000 + 1" if by_person else ", '', n % 500 + 1",
    )
    name = postgres.make_database(schema_of(version, trigrams=False))
    with psycopg.connect(postgres.server.url(name), autocommit=True) as connection:
        connection.execute(rows.encode())
    yield postgres.server.url(name), shape
    postgres.server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def images(count: int = 200) -> list[Sought]:
    return [
        Sought(f"alias{number * 7}.png", f"https://img.example/{number * (POSTS // 200) + 1}.png")
        for number in range(count)
    ]


def hot(shape: Shape) -> dict[str, sql.Composed]:
    """What each look asks."""
    asked = (queries.links, queries.uploads, queries.thumbnails, queries.post_texts, queries.comments)
    return {ask.__name__: ask(shape) for ask in (*asked, queries.private_messages)}


def scans(plan: dict[str, Any], *, limited: bool = False) -> Iterator[str]:
    """The tables that a plan reads from end to end, be it along an index."""
    kind = plan["Node Type"]
    if kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in plan and not limited):
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scans(part, limited=limited or kind == "Limit")


def test_a_look_reads_no_table_from_end_to_end(large: tuple[str, Shape]) -> None:
    url, shape = large

    async def explain() -> dict[str, list[str]]:
        database = LemmyDatabase("default", url, LemmySettings())
        home = await database.home()
        assert home.shape == shape and database._connection is not None
        parameters = database._parameters(images(), home.base)
        read = {}
        for name, statement in hot(shape).items():
            explained = await database._connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + statement, parameters)
            row = await explained.fetchone()
            read[name] = list(scans(row[0][0]["Plan"]))
        await database.close()
        return read

    assert asyncio.run(explain()) == {name: [] for name in hot(shape)}


def test_large_tables_are_not_read_even_where_the_planner_may(large: tuple[str, Shape]) -> None:
    url, shape = large
    database = LemmyDatabase("default", url, LemmySettings())
    parameters = database._parameters(images(), "https://home.example")
    with psycopg.connect(url) as connection:
        for name, statement in hot(shape).items():
            explained = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + statement, parameters).fetchone()
            assert explained is not None
            read = set(scans(explained[0][0]["Plan"]))
            assert not read & {"post", "comment", "private_message", "person", "local_image"}, name


def test_a_look_for_many_images_finds_them_within_its_time_out(large: tuple[str, Shape]) -> None:
    url, _ = large

    async def look() -> set[int]:
        database = LemmyDatabase("default", url, LemmySettings(statement_timeout_s=30.0))
        recent = Sought("", f"https://img.example/thumb/{POSTS}")
        rows = await database.look([*images(), recent, Sought("", "https://img.example/c199999")])
        await database.close()
        return {row.number for row in rows if row.place in ("post-link", "post-thumbnail", "comment")}

    assert asyncio.run(look()) == set(range(202))
