"""A rescan's policies: parsed from their texts, whose images they judge, and what is wrong with them."""

import asyncio

import numpy as np
import pytest

from scanner.concepts import Concepts, ConceptsUnusable
from scanner.policy import PolicyError
from scanner.rescanning.policies import RescanPolicies, prepare_policies
from schemas.messages import EVERY_TENANT, RescanOrdered, RescanTier
from tests.unit.scanner.stub_models import RedModel, WordModel


def policy(at_least: float, concept: str = "") -> str:
    return f"""
    [policy]
    name = "test"
    {concept}
    [[rule]]
    name = "red"
    says = "It is red."
    decision = "reject"
    when = {{ score = "{"words/up" if concept else "red/red"}", at_least = {at_least} }}
    """


UP = """
    [[concept]]
    name = "up"
    model = "words"
    prompts = ["y"]
"""


def prepare(policies: dict[str, str], tenants: tuple[str, ...] = ()) -> RescanPolicies:
    models = [RedModel(), WordModel()]
    job = RescanOrdered(
        rescan="a",
        tier=RescanTier.FRAMES,
        tenants=tenants,
        since=0,
        until=9,
        spans=(),
        policies=policies,
        ordered_at=1,
        changed_at=1,
    )
    return asyncio.run(prepare_policies(job, models, Concepts(models)))


def test_each_tenant_has_its_own_policy_or_everyones() -> None:
    prepared = prepare({EVERY_TENANT: policy(0.5), "art": policy(0.9)})
    assert prepared.of("art").policy.id != prepared.of("default").policy.id == prepared.of("other").policy.id
    assert prepared.concern("art")
    assert prepared.concern("default")


def test_only_those_tenants_are_concerned_that_are_asked_for_and_have_a_policy() -> None:
    prepared = prepare({"art": policy(0.9), "news": policy(0.8)}, tenants=("art", "default"))
    assert [tenant for tenant in ("art", "news", "default") if prepared.concern(tenant)] == ["art"]


def test_the_concepts_of_a_policy_are_ready() -> None:
    prepared = prepare({EVERY_TENANT: policy(0.5, UP)})
    concepts = prepared.of("default").concepts
    (scores,) = concepts.score([{}], {"words": np.array([[0.6, 0.8, 0.0]], dtype=np.float32)})
    assert scores == {"words/up": pytest.approx(0.8)}


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ({}, "rescan a.*names no policy"),
        ({EVERY_TENANT: "nonsense"}, r"rescan a, policy of \*.*TOML"),
        ({EVERY_TENANT: policy(0.5).replace("red/red", "blue/blue")}, "no model gives the score 'blue/blue'"),
    ],
)
def test_what_cannot_be_judged_by_is_refused(policies: dict[str, str], said: str) -> None:
    with pytest.raises((PolicyError, ConceptsUnusable), match=said):
        prepare(policies)
