"""As an admin has it: fediwarden in containers beside a Lemmy's docker-compose with a real pict-rs, and the way out.

The tests run in this order.
"""

from collections.abc import Iterator

import pytest

from fediwarden.environment_file import API_KEY as API_KEY_SETTING
from tests.compose.deployment import SERVICES, Deployment, eventually
from tests.compose.lemmy import API_KEY, Lemmy
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.gateway.relay.test_tokens import token

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

DOMAIN = "lemmy.example"
RELAY = "http://fediwarden-relay:14053"
ACCEPTED, REJECTED, RELAYED, RELAYED_REJECTED, LATE, UNASKED = range(6)
PICTURES = {
    ACCEPTED: accepted_picture(1),
    REJECTED: rejected_picture(2),
    RELAYED: accepted_picture(3),
    RELAYED_REJECTED: rejected_picture(4),
    LATE: rejected_picture(5),
    UNASKED: rejected_picture(6),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"), (*SERVICES, "relay", "rescans"))
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
    house.set(**{"COMPOSE_PROFILES": "relay,rescans", API_KEY_SETTING: API_KEY})
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


def _uploaded(lemmy: Lemmy, number: int) -> tuple[int, str] | None:
    try:
        return lemmy.upload(number)
    except AssertionError:  # nobody listens yet
        return None
