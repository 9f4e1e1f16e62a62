"""What the gateway answers is what its OpenAPI description says, whatever it is sent."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.store import ListStore
from gateway.openapi import AnswerBody, ErrorBody, ListBody, PdqBody, ReadinessBody, ReportBody, UnreadableBody
from gateway.overrides.openapi import OverridesBody
from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings
from tests import pictures
from tests.examples import thorough
from tests.gateways import running_gateway

pytestmark = pytest.mark.kafka

KEY = "the-contracts-key"
TOKEN = "the-contracts-admin-token"
READER_TOKEN = "the-contracts-reader"
BODIES = (AnswerBody, ErrorBody, ListBody, OverridesBody, PdqBody, ReadinessBody, ReportBody, UnreadableBody)
MODELS = {model.__name__: model for model in BODIES}


@pytest.fixture(scope="module")
def url(make_topics: Callable[[], BrokerSettings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tenants = {"default": TenantSettings(), "keyed": TenantSettings(key=SecretStr(KEY))}
    folder = tmp_path_factory.mktemp("lists")
    ListStore(folder).save(
        ListDefinition(name="own", source=""),
        HashSet.of({HashKind.PDQ: [bytes(range(32))]}),
        notes={bytes(range(32)).hex(): {"by": "policy", "at": 1, "rules": ["sexual"], "scan_id": "x"}},
    )
    more = {
        "deadline_ms": 100,
        "body_timeout_s": 3,
        "admin_token": SecretStr(TOKEN),
        "lists": {"folder": folder, "shared": ["own"], "reader_token": READER_TOKEN},
        "fetch": {"enabled": True},
    }
    with running_gateway(make_topics(), tenants=tenants, **more) as running:
        yield running.ready().url


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/api/v1/scan/{key}", GenerationMode.POSITIVE),
        ("POST", "/api/v1/scan/{key}", GenerationMode.NEGATIVE),
        ("POST", "/v1/scans", GenerationMode.POSITIVE),
        ("POST", "/v1/scans", GenerationMode.NEGATIVE),
        ("GET", "/v1/scans/{scan_id}", GenerationMode.POSITIVE),
        ("GET", "/v1/overrides", GenerationMode.POSITIVE),
        ("POST", "/v1/overrides", GenerationMode.POSITIVE),
        ("POST", "/v1/overrides", GenerationMode.NEGATIVE),
        ("DELETE", "/v1/overrides/{override_id}", GenerationMode.POSITIVE),
        ("GET", "/v1/lists/{name}", GenerationMode.POSITIVE),
        ("GET", "/v1/pdq", GenerationMode.POSITIVE),
        ("GET", "/v1/pdq", GenerationMode.NEGATIVE),
        ("GET", "/v1/pdq/{key}", GenerationMode.POSITIVE),
        ("GET", "/healthz", GenerationMode.POSITIVE),
        ("GET", "/readyz", GenerationMode.POSITIVE),
        ("GET", "/metrics", GenerationMode.POSITIVE),
    ],
)
@pytest.mark.hypothesis  # make test-long tries more
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_nothing_that_is_sent_gets_an_answer_that_is_not_described(
    url: str, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]

    @given(case=operation.as_strategy(generation_mode=mode), with_key=st.booleans())
    @settings(max_examples=thorough(40), deadline=None, suppress_health_check=list(HealthCheck))
    def try_one(case: Any, with_key: bool) -> None:
        if with_key and "{key}" in path:
            case.path_parameters["key"] = KEY
        if with_key and "overrides" in path:
            case.headers["Authorization"] = f"Bearer {TOKEN}"
        response = case.call(base_url=url)
        # Bytes are bytes: there is no such thing as a body of the wrong type, only one that is no image.
        case.validate_response(response, excluded_checks=[negative_data_rejection, positive_data_acceptance])
        assert response.status_code < 500, response.text

    try_one()


def examples(description: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    model = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                    for name, example in content.get("examples", {}).items():
                        yield f"{path} {status} {name}", model, example["value"]


def test_every_example_is_valid_for_its_schema_and_every_answer_has_one(url: str) -> None:
    description = httpx.get(f"{url}/openapi.json").json()
    found = list(examples(description))
    for name, model, example in found:
        assert MODELS[model].model_validate(example).model_dump(mode="json") == example, name
    with_examples = {name.rpartition(" ")[0] for name, _, _ in found}
    documented = ("/api/v1/scan/{key}", "/v1/scans", "/v1/scans/{scan_id}", "/v1/lists/{name}", "/v1/pdq")
    for path in (*documented, "/v1/overrides", "/v1/overrides/{override_id}"):
        for operation in description["paths"][path].values():
            with_body = {status for status, response in operation["responses"].items() if "content" in response}
            assert {f"{path} {status}" for status in with_body} <= with_examples


@pytest.mark.parametrize(
    ("kind", "pict_rs_status", "json_status", "model"),
    [("png", 200, 200, AnswerBody), ("garbage", 406, 422, UnreadableBody)],
)
def test_an_images_answer_has_the_fields_that_are_described_and_no_more(
    url: str, kind: str, pict_rs_status: int, json_status: int, model: type[AnswerBody]
) -> None:
    for_pict_rs = httpx.post(f"{url}/api/v1/scan/{KEY}", content=pictures.make(kind))
    assert for_pict_rs.status_code == pict_rs_status
    assert set(for_pict_rs.json()) == set(AnswerBody.model_fields)
    AnswerBody.model_validate_json(for_pict_rs.content)
    for_others = httpx.post(f"{url}/v1/scans", content=pictures.make(kind))
    assert for_others.status_code == json_status
    assert set(for_others.json()) == set(model.model_fields)
    model.model_validate_json(for_others.content)
    report = httpx.get(f"{url}/v1/scans/{for_others.json()['scan_id']}")
    assert set(report.json()) == set(ReportBody.model_fields)
    ReportBody.model_validate_json(report.content)


def test_a_list_and_its_refusals_are_as_described(url: str) -> None:
    reader = {"Authorization": f"Bearer {READER_TOKEN}"}
    found = httpx.get(f"{url}/v1/lists/own", headers=reader)
    assert set(found.json()) == set(ListBody.model_fields)
    assert ListBody.model_validate_json(found.content).provenance[bytes(range(32)).hex()]["rules"] == ["sexual"]
    unchanged = httpx.get(f"{url}/v1/lists/own", headers=reader | {"If-None-Match": found.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for answer, status in (
        (httpx.get(f"{url}/v1/lists/own"), 401),
        (httpx.get(f"{url}/v1/lists/other", headers=reader), 404),
        (httpx.get(f"{url}/v1/pdq", params={"image_url": "http://169.254.169.254/"}), 400),
    ):
        assert answer.status_code == status
        ErrorBody.model_validate_json(answer.content)
