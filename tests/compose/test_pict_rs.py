"""As an admin has it: fediwarden in containers beside a Lemmy's docker-compose with a real pict-rs, and the way out.

The tests run in this order.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fediwarden.environment_file import API_KEY as API_KEY_SETTING
from tests.compose.deployment import SERVICES, Deployment, eventually
from tests.compose.lemmy import API_KEY, READER, VERSION, Lemmy
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.gateway.relay.test_tokens import token

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

DOMAIN = "home.example"
LEMMY_DATABASE = "FEDIWARDEN_TENANTS__DEFAULT__LEMMY_DATABASE"
RELAY = "http://fediwarden-relay:14053"
ACCEPTED, REJECTED, RELAYED, RELAYED_REJECTED, POSTED, TOKENED, LATE, UNASKED = range(8)
PICTURES = {
    ACCEPTED: accepted_picture(1),
    REJECTED: rejected_picture(2),
    RELAYED: accepted_picture(3),
    RELAYED_REJECTED: rejected_picture(4),
    POSTED: accepted_picture(5),
    TOKENED: accepted_picture(6),
    LATE: rejected_picture(7),
    UNASKED: rejected_picture(8),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"), (*SERVICES, "relay", "lemmy", "rescans"))
    deployment.draw(*PICTURES.values())
    try:
        yield deployment
    finally:
        deployment.take_down()


@pytest.fixture(scope="module")
def lemmy(house: Deployment) -> Iterator[Lemmy]:
    lemmy = Lemmy(house.folder.parent, house.pictures)
    try:
        yield lemmy
    finally:
        lemmy.take_down()


def test_everything_comes_up_beside_it(house: Deployment) -> None:
    house.init("--domain", DOMAIN)
    profiles = {"COMPOSE_PROFILES": "relay,lemmy,rescans"}
    house.set(**profiles, **{API_KEY_SETTING: API_KEY, LEMMY_DATABASE: READER})
    house.up()
    house.await_scanner()


def test_what_pict_rs_takes_is_judged_first(house: Deployment, lemmy: Lemmy) -> None:
    lemmy.override(house.line_for_pict_rs)
    lemmy.compose("up", "-d")
    status, alias = eventually(lambda: _uploaded(lemmy, ACCEPTED), within_s=60, what="pict-rs is up")
    assert status == 201
    assert lemmy.fetch(alias)[0] == 200
    assert lemmy.upload(REJECTED) == (400, "")


def test_the_relay_takes_uploads_and_learns_whose_they_are(house: Deployment, lemmy: Lemmy) -> None:
    whose = token({"sub": "17", "iss": DOMAIN}).decode()
    status, alias = lemmy.upload(RELAYED, to=RELAY, token=whose)
    assert status == 201, house.log("relay")
    assert lemmy.fetch(alias, to=RELAY) == lemmy.fetch(alias)
    assert lemmy.upload(RELAYED_REJECTED, to=RELAY, token=whose) == (400, "")

    def is_known() -> bool:
        return DOMAIN in house.execute("audit", "fediwarden", "audit", "instances", "--json")

    eventually(is_known, within_s=120, what="the audit knows whose images they are")


def test_lemmys_database_says_who_posted(house: Deployment, lemmy: Lemmy) -> None:
    _, alias = lemmy.upload(POSTED, to=RELAY)  # whose it is the relay is not told
    rows = lemmy.make_tables()
    bob = rows.person("bob")
    rows.upload(alias, bob)
    _, post = rows.post(bob, rows.community("pictures"), url=rows.stored(alias))

    check = "fediwarden", "lemmy", "--check"
    readable = f"tenants.default.lemmy_database: Lemmy {VERSION} at https://{DOMAIN}, readable\n"
    assert house.execute("lemmy", *check) == readable

    def authors_of(**facts: str) -> set[str]:
        """The pseudonyms of whoever is known as author of what these are known of."""
        known = [each for each in _origins(house) if facts.items() <= each.items()]
        return {each["author"]["pseudonym"] for each in known if each.get("author")}

    found = eventually(lambda: authors_of(method="database", post_url=post), within_s=120, what="its author is found")
    (author,) = found

    def is_known_to_the_relay() -> bool:
        """It asks as well, as soon as it can: before, it knew a number alone."""
        _, alias = lemmy.upload(TOKENED, to=RELAY, token=token({"sub": str(bob.local_user), "iss": DOMAIN}).decode())
        return author in authors_of(method="relay", alias=alias)

    eventually(is_known_to_the_relay, within_s=90, what="the relay and the database know them as the same")


def test_what_is_judged_too_late_is_removed_from_pict_rs(house: Deployment, lemmy: Lemmy) -> None:
    house.compose("stop", "scanner")
    status, alias = lemmy.upload(LATE)
    assert status == 201, "the deadline lets it through"
    assert lemmy.fetch(alias)[0] == 200
    house.compose("up", "-d", "scanner")
    eventually(lambda: lemmy.fetch(alias)[0] == 404, within_s=180, what="the enforcer removed it")


def test_the_way_out_leaves_pict_rs_as_it_was(house: Deployment, lemmy: Lemmy) -> None:
    lemmy.take_override_away()
    lemmy.compose("up", "-d")
    house.take_down(check=True)
    status, alias = eventually(lambda: _uploaded(lemmy, UNASKED), within_s=60, what="pict-rs is up")
    assert status == 201, "nobody is asked any more"
    assert lemmy.fetch(alias)[0] == 200


def _origins(house: Deployment) -> list[dict[str, Any]]:
    """What the topic `origins` says."""
    lines = house.execute("gateway", "fediwarden", "export", "origins").splitlines()
    return [dict(json.loads(line)) for line in lines]


def _uploaded(lemmy: Lemmy, number: int) -> tuple[int, str] | None:
    try:
        return lemmy.upload(number)
    except AssertionError:  # nobody listens yet
        return None
