"""Looking an instance's contacts up through the pages, switched on: from the click to the letter."""

import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from federation_audit.deciding.addresses import addresses_of
from federation_audit.deciding.letters import letters_of
from federation_audit.pages.asking import ask_for_contacts
from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.sending.settings import ContactSettings
from federation_audit.settings import AuditSettings
from federation_audit.store.engine import Store
from schemas.clock import now_ms
from schemas.messages import Decision
from tests.certificates import Authority
from tests.fediverse import review
from tests.kafka import find_free_ports
from tests.pages import WORDS, running_pages
from tests.stores import judged, seen, sha, write
from tests.unit.federation_audit.pages.test_deciding_pages import Visitor
from tests.unit.federation_audit.sides import InstanceSide
from tests.unit.federation_audit.test_mail import Letterbox, parsed

AT = "/decisions/localhost"
RLO = "\N{RIGHT-TO-LEFT OVERRIDE}"
DOCUMENTED = {"/.well-known/nodeinfo", "/nodeinfo/2.1", "/api/v2/instance", "/api/v3/site", "/api/v4/site"}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstanceSide]:
    """An instance on https://localhost, whose certificate this process trusts as an admin's system would."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    certificate, key, _ = authority.issue("instance")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    side = InstanceSide({})
    with pytest.MonkeyPatch.context() as patch, side.running(context):
        patch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        yield side


@pytest.fixture(scope="module")
def letterbox() -> Letterbox:
    return Letterbox()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, instance: InstanceSide, letterbox: Letterbox) -> Iterator[Pages]:
    """Pages over a store in which localhost has a confirmed incident."""
    port = find_free_ports(1)
    controller = Controller(letterbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    audit = AuditSettings.model_validate(
        {
            "assess_every_s": 86_400,
            "mail": {"host": "127.0.0.1", "port": port, "security": "none", "sender": "abuse@my.example"},
            "contacts": contacts(instance),
        }
    )
    with running_pages(
        tmp_path_factory.mktemp("pages"), PagesSettings(port=0), surroundings=Surroundings(audit=audit)
    ) as running:
        store = running.site.database
        assert isinstance(store, Store)
        at = now_ms() - 86_400_000
        told = seen(1, author="localhost", actor="x", post="https://localhost/post/1", at=at)
        write(store, [judged(1, Decision.REJECT, at=at)], [told])
        review(store, [sha(1)])
        yield running
    controller.stop()


@pytest.fixture
def admin(pages: Pages) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    visitor.get("/login")
    assert visitor.post("/login", {"name": "admin", "password": WORDS}).status_code == 303
    visitor.get("/account")
    yield visitor
    visitor.http.close()


def contacts(instance: InstanceSide, **changes: Any) -> dict[str, Any]:
    port = int(instance.url.rpartition(":")[2])
    return {"enabled": True, "timeout_s": 60, "ports": [port], "networks": ["127.0.0.0/8", "::1/128"]} | changes


def base(instance: InstanceSide) -> str:
    return instance.url.replace("127.0.0.1", "localhost")


def named(instance: InstanceSide) -> dict[str, Any]:
    """What an instance that speaks all of them says."""
    own = base(instance)
    return {
        "/.well-known/nodeinfo": {
            "links": [
                {"rel": "http://nodeinfo.diaspora.software/ns/schema/2.1", "href": f"{own}/nodeinfo/2.1"},
            ]
        },
        "/nodeinfo/2.1": {"metadata": {"maintainer": {"name": "x", "email": "root@mail.example"}}},
        "/api/v2/instance": {"contact": {"email": "abuse@mail.example", "account": {"url": f"{own}/@admin"}}},
        "/api/v3/site": {
            "admins": [
                {"person": {"actor_id": f"{own}/u/root"}},
                {"person": {"actor_id": "https://victim.example/u/somebody"}},
            ]
        },
    }


def test_a_contact_that_the_instance_names_is_shown_chosen_and_written_to(
    admin: Visitor, pages: Pages, instance: InstanceSide, letterbox: Letterbox
) -> None:
    instance.pages = named(instance)
    page = admin.get(AT)
    assert "Ask localhost" in page.text and instance.asked == []
    page = admin.post(f"{AT}/addresses/find")
    assert page.status_code == 200, page.text
    assert "4 found, and kept" in page.text and "answered 404" in page.text and "victim.example" not in page.text
    assert {each.path for each in instance.asked} == DOCUMENTED
    assert {each.method for each in instance.asked} == {"GET"}
    with pages.site.database.reading() as connection:
        known = {each.value: each.source for each in addresses_of(connection, "localhost")}
    assert known == {
        "abuse@mail.example": "site API /api/v2/instance",
        "root@mail.example": "nodeinfo",
        f"{base(instance)}/@admin": "site API /api/v2/instance",
        f"{base(instance)}/u/root": "site API /api/v3/site",
    }
    # Asked again, nothing is new; and nobody was written to by it.
    admin.get(AT)
    assert admin.post(f"{AT}/addresses/find").status_code == 200
    log = admin.get("/actions?about=localhost&format=json").json()["rows"]
    assert [each["what"] for each in log] == ["contacts asked for"] * 2
    assert letterbox.letters == []
    # Of them a person chooses: the report has the first for its recipient.
    page = admin.get(f"{AT}/report")
    assert re.search(r'name="to"[^>]*value="abuse@mail.example"', page.text)
    assert '<option value="root@mail.example">nodeinfo</option>' in page.text
    admin.post(f"{AT}/plan", {"way": "mail", "to": "abuse@mail.example"})
    assert letterbox.letters == []
    assert admin.post(f"{AT}/confirm", admin.hidden()).headers["location"].endswith("said=sent")
    (letter,) = letterbox.letters
    body = parsed(letter).get_body(("plain",))
    assert letter.rcpt_tos == ["abuse@mail.example"] and body is not None
    assert "https://localhost/post/1" in body.get_content()
    with pages.site.database.reading() as connection:
        assert [each.way for each in letters_of(connection, "localhost")] == ["mail to abuse@mail.example"]


def test_what_an_instance_says_is_doubted_and_what_failed_is_told(
    admin: Visitor, pages: Pages, instance: InstanceSide
) -> None:
    hostile = f"<script>alert(1)</script>{RLO}@x.example"
    instance.pages = {
        "/.well-known/nodeinfo": ["no", "object"],
        "/api/v2/instance": {"contact": {"email": hostile, "account": {"url": "javascript:alert(1)"}}},
        "/api/v3/site": f"http://localhost/{'x' * 100}",
        "/api/v4/site": {"admins": [{"person": {"ap_id": f"{base(instance)}/u/{'x' * 10_000}"}}]},
    }
    with pages.site.database.reading() as connection:
        before = addresses_of(connection, "localhost")
    page = admin.post(f"{AT}/addresses/find")
    assert page.status_code == 200 and "It named nobody" in page.text
    assert "not as documented" in page.text and "only https://" in page.text
    assert "<script>alert" not in page.text and RLO not in page.text
    with pages.site.database.reading() as connection:
        assert addresses_of(connection, "localhost") == before


def test_who_lives_in_a_network_of_ours_is_not_asked(admin: Visitor, instance: InstanceSide) -> None:
    before = len(instance.asked)
    page = admin.post("/decisions/10.0.0.1/addresses/find")
    assert page.status_code == 200 and "It named nobody" in page.text and "not public" in page.text
    assert len(instance.asked) == before


def test_a_silent_instance_was_asked_nevertheless(instance: InstanceSide) -> None:
    instance.silent.add("GET")
    try:
        asked = ask_for_contacts("localhost", ContactSettings.model_validate(contacts(instance)), within_s=3)
    finally:
        instance.silent.clear()
    assert asked.found is not None and asked.found.contacts == ()
    assert asked.found.failures == ("it did not answer in time",)
