"""Tables of Lemmy 0.19 and 1.0, with the columns and indexes that matter here, and rows for them.

Columns, types and indexes are those of LemmyNet/lemmy (crates/db_schema/src/schema.rs and a dump of 0.19's database;
crates/db_schema_file/src/schema.rs of 1.0.0-beta.1); columns that play no part are left out, secrets are not.
"""

from dataclasses import dataclass
from typing import Any

import psycopg

_EXTENSIONS = "CREATE EXTENSION pg_trgm; CREATE EXTENSION ltree;"

_BOTH = """
CREATE TABLE instance (
    id serial PRIMARY KEY, domain varchar(255) NOT NULL UNIQUE, software varchar(255), version varchar(255),
    {published} timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE site (
    id serial PRIMARY KEY, name varchar(20) NOT NULL, icon text, banner text, {ap} varchar(255) NOT NULL UNIQUE,
    private_key text, public_key text NOT NULL DEFAULT '', instance_id int NOT NULL UNIQUE REFERENCES instance
);
CREATE TABLE local_site (id serial PRIMARY KEY, site_id int NOT NULL UNIQUE REFERENCES site);
CREATE TABLE person (
    id serial PRIMARY KEY, name varchar(255) NOT NULL, display_name varchar(255), avatar text,
    {published} timestamptz NOT NULL DEFAULT now(), {ap} varchar(255) NOT NULL UNIQUE, bio text,
    local bool NOT NULL DEFAULT true, private_key text, public_key text NOT NULL DEFAULT '', banner text,
    deleted bool NOT NULL DEFAULT false, matrix_user_id text, instance_id int NOT NULL REFERENCES instance
);
CREATE INDEX idx_person_published ON person ({published} DESC);
CREATE INDEX idx_person_local_instance ON person (local DESC, instance_id);
CREATE UNIQUE INDEX idx_person_lower_actor_id ON person (lower({ap}::text));
CREATE TABLE local_user (
    id serial PRIMARY KEY, person_id int NOT NULL UNIQUE REFERENCES person, password_encrypted text NOT NULL DEFAULT '',
    email text UNIQUE, totp_2fa_secret text
);
CREATE TABLE community (
    id serial PRIMARY KEY, name varchar(255) NOT NULL, title varchar(255) NOT NULL DEFAULT '',
    {published} timestamptz NOT NULL DEFAULT now(), {ap} varchar(255) NOT NULL UNIQUE, local bool NOT NULL DEFAULT true,
    private_key text, icon text, banner text, instance_id int NOT NULL REFERENCES instance
);
CREATE TABLE post (
    id serial PRIMARY KEY, name varchar(200) NOT NULL DEFAULT '', url varchar({url_most}), body text,
    creator_id int NOT NULL REFERENCES person, community_id int NOT NULL REFERENCES community,
    removed bool NOT NULL DEFAULT false, {published} timestamptz NOT NULL DEFAULT now(),
    deleted bool NOT NULL DEFAULT false, thumbnail_url text, ap_id varchar(255) NOT NULL UNIQUE,
    local bool NOT NULL DEFAULT true, alt_text text
);
CREATE INDEX idx_post_url ON post (url);
CREATE INDEX idx_post_creator ON post (creator_id);
CREATE INDEX idx_post_community ON post (community_id);
CREATE INDEX idx_post_published ON post ({published}{descending});
CREATE TABLE comment (
    id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person, post_id int NOT NULL REFERENCES post,
    content text NOT NULL, removed bool NOT NULL DEFAULT false, {published} timestamptz NOT NULL DEFAULT now(),
    deleted bool NOT NULL DEFAULT false, ap_id varchar(255) NOT NULL UNIQUE, local bool NOT NULL DEFAULT true,
    path ltree NOT NULL DEFAULT '0'
);
CREATE INDEX idx_comment_creator ON comment (creator_id);
CREATE INDEX idx_comment_post ON comment (post_id);
CREATE INDEX idx_comment_published ON comment ({published} DESC);
CREATE TABLE private_message (
    id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person, recipient_id int NOT NULL REFERENCES person,
    content text NOT NULL, deleted bool NOT NULL DEFAULT false, {published} timestamptz NOT NULL DEFAULT now(),
    ap_id varchar(255) NOT NULL UNIQUE, local bool NOT NULL DEFAULT true
);
"""

_UPLOADS_019 = """
CREATE TABLE local_image (
    local_user_id int REFERENCES local_user, pictrs_alias text NOT NULL PRIMARY KEY, pictrs_delete_token text NOT NULL,
    published timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_image_upload_local_user_id ON local_image (local_user_id);
"""

_UPLOADS_1 = """
CREATE TABLE local_image (
    pictrs_alias text NOT NULL PRIMARY KEY, published_at timestamptz NOT NULL DEFAULT now(),
    person_id int REFERENCES person, thumbnail_for_post_id int REFERENCES post
);
CREATE INDEX idx_image_upload_person_id ON local_image (person_id);
"""

_TRIGRAMS = """
CREATE INDEX idx_post_trigram ON post USING gin (name gin_trgm_ops, body gin_trgm_ops, alt_text gin_trgm_ops);
CREATE INDEX idx_comment_content_trigram ON comment USING gin (content gin_trgm_ops);
"""

NAMES = {
    "0.19": {"ap": "actor_id", "published": "published", "url_most": "512", "descending": ""},
    "1.0": {"ap": "ap_id", "published": "published_at", "url_most": "2000", "descending": " DESC"},
}

VERSIONS = tuple(NAMES)


def schema_of(version: str, *, trigrams: bool = True) -> str:
    """The tables of Lemmy `version`, empty. Without `trigrams` a million rows come in half the time."""
    tables = _EXTENSIONS + _BOTH.format(**NAMES[version]) + (_UPLOADS_019 if version == "0.19" else _UPLOADS_1)
    return tables + (_TRIGRAMS if trigrams else "")


def grants_of(version: str, role: str) -> str:
    """A role that may read what docs/lemmy.md says, and no more."""
    from federation_audit.lemmy.shape import V019, V1, grant_statements

    shape = V019 if version == "0.19" else V1
    return "\n".join(grant_statements(shape.needed(private_messages=True), role))


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or a community, by its id in the table and its ActivityPub id."""

    number: int
    actor_id: str
    local_user: int = 0


class Lemmy:
    """The rows of a Lemmy at https://home.example, written as its own processes would."""

    HOME = "https://home.example"

    def __init__(self, url: str, version: str) -> None:
        self.version = version
        self._names = NAMES[version]
        self._connection = psycopg.connect(url, autocommit=True)
        self._posts = 0
        home = self.instance("home.example")
        site = self.insert("site", name="Home", instance_id=home, **{self._names["ap"]: f"{self.HOME}/"})
        self.insert("local_site", site_id=site)

    def close(self) -> None:
        self._connection.close()

    def insert(self, table: str, *, returning: str = "id", **values: Any) -> Any:
        columns = {self._names["published"] if name == "published" else name: value for name, value in values.items()}
        marks = ", ".join(["%s"] * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) RETURNING {returning}"
        row = self._connection.execute(statement.encode(), list(columns.values())).fetchone()
        assert row is not None
        return row[0]

    def execute(self, statement: str, *parameters: Any) -> None:
        self._connection.execute(statement.encode(), parameters)

    def instance(self, domain: str) -> int:
        found = self._connection.execute("SELECT id FROM instance WHERE domain = %s", [domain]).fetchone()
        return found[0] if found else self.insert("instance", domain=domain)

    def person(self, name: str, domain: str = "home.example", **values: Any) -> Actor:
        local = domain == "home.example"
        actor_id = values.pop("actor_id", f"https://{domain}/u/{name}")
        row = {"name": name, "local": local, "instance_id": self.instance(domain), self._names["ap"]: actor_id} | values
        number = self.insert("person", **row)
        secrets = {"email": f"{name}@mail.example", "password_encrypted": "hash"}
        return Actor(number, actor_id, self.insert("local_user", person_id=number, **secrets) if local else 0)

    def community(self, name: str, domain: str = "home.example", **values: Any) -> Actor:
        actor_id = f"https://{domain}/c/{name}"
        row = {"name": name, "local": domain == "home.example", "instance_id": self.instance(domain)} | values
        return Actor(self.insert("community", **row, **{self._names["ap"]: actor_id}), actor_id)

    def post(self, creator: Actor, community: Actor, **values: Any) -> tuple[int, str]:
        """A post's number and its ActivityPub id."""
        self._posts += 1
        ap_id = values.pop("ap_id", f"{creator.actor_id.partition('/u/')[0]}/post/{self._posts}")
        number = self.insert("post", creator_id=creator.number, community_id=community.number, ap_id=ap_id, **values)
        return number, ap_id

    def comment(self, creator: Actor, post: int, content: str) -> str:
        self._posts += 1
        ap_id = f"{creator.actor_id.partition('/u/')[0]}/comment/{self._posts}"
        self.insert("comment", creator_id=creator.number, post_id=post, content=content, ap_id=ap_id)
        return ap_id

    def message(self, creator: Actor, recipient: Actor, content: str) -> str:
        self._posts += 1
        ap_id = f"{creator.actor_id.partition('/u/')[0]}/private_message/{self._posts}"
        row = {"creator_id": creator.number, "recipient_id": recipient.number, "content": content, "ap_id": ap_id}
        self.insert("private_message", **row)
        return ap_id

    def upload(self, alias: str, uploader: Actor | None, thumbnail_for: int | None = None) -> None:
        """A stored file. Of a thumbnail 0.19 keeps nobody; 1.0 keeps the post and its creator."""
        if self.version == "0.19":
            owner = None if uploader is None or thumbnail_for else uploader.local_user
            row = {"pictrs_alias": alias, "local_user_id": owner, "pictrs_delete_token": "token"}
        else:
            person = None if uploader is None else uploader.number
            row = {"pictrs_alias": alias, "person_id": person, "thumbnail_for_post_id": thumbnail_for}
        self.insert("local_image", returning="pictrs_alias", **row)

    def stored(self, alias: str) -> str:
        """The address of a stored file."""
        return f"{self.HOME}/{'pictrs/image' if self.version == '0.19' else 'api/v4/image'}/{alias}"

    def proxied(self, encoded: str) -> str:
        """The address of a remote image, percent-encoded, behind Lemmy's proxy."""
        return f"{self.HOME}/api/{'v3/image_proxy' if self.version == '0.19' else 'v4/image/proxy'}?url={encoded}"
