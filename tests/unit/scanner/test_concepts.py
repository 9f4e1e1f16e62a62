"""Concepts: text features once for each policy, cosines for each frame, whatever the number of policies."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from scanner.concepts import Concepts, ConceptsUnusable
from tests.unit.scanner.stub_models import RedModel, WordModel


@dataclass(frozen=True)
class Asking:
    """What is wanted of a policy."""

    id: str
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]]


FRAMES = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], dtype=np.float32)


def test_a_score_is_the_cosine_with_the_mean_of_a_concepts_texts_and_never_below_0() -> None:
    policy = Asking("p", {"words": {"x": ("x",), "both": ("x", "y"), "not-x": ("-x",)}})

    async def run() -> list[dict[str, float]]:
        concepts = await Concepts([WordModel(), RedModel()]).prepare(policy)
        assert concepts.labels == ("words/x", "words/both", "words/not-x")
        return concepts.score([{"red/red": 0.25}] * 3, {"words": FRAMES})

    half = 0.5**0.5
    assert asyncio.run(run()) == [
        {"red/red": 0.25, "words/x": 1.0, "words/both": pytest.approx(half), "words/not-x": 0.0},
        {"red/red": 0.25, "words/x": 0.0, "words/both": pytest.approx(half), "words/not-x": 0.0},
        {"red/red": 0.25, "words/x": pytest.approx(0.6), "words/both": pytest.approx(1.4 * half), "words/not-x": 0.0},
    ]


def test_texts_are_read_once_for_a_policy_in_use_and_again_when_nobody_holds_it() -> None:
    model = WordModel()
    policy, other = Asking("p", {"words": {"x": ("x",)}}), Asking("q", {"words": {"y": ("y", "x")}})

    async def run() -> None:
        concepts = Concepts([model])
        held = await concepts.prepare(policy)
        assert await concepts.prepare(Asking("p", policy.concepts)) is held
        assert model.asked == [["x"]]
        await concepts.prepare(other)
        assert model.asked == [["x"], ["y", "x"]]
        del held
        await concepts.prepare(policy)
        assert model.asked == [["x"], ["y", "x"], ["x"]]

    asyncio.run(run())


def test_several_policies_share_one_pass_of_an_image() -> None:
    async def run() -> None:
        concepts = Concepts([WordModel()])
        first = await concepts.prepare(Asking("p", {"words": {"a": ("x",)}}))
        second = await concepts.prepare(Asking("q", {"words": {"a": ("y",)}}))
        frames: list[dict[str, float]] = [{}] * 3
        assert [s["words/a"] for s in first.score(frames, {"words": FRAMES})] == pytest.approx([1.0, 0.0, 0.6])
        assert [s["words/a"] for s in second.score(frames, {"words": FRAMES})] == pytest.approx([0.0, 1.0, 0.8])

    asyncio.run(run())


def test_a_policy_without_concepts_leaves_scores_as_they_are() -> None:
    async def run() -> None:
        nothing = await Concepts([RedModel()]).prepare(Asking("p", {}))
        assert nothing.score([{"red/red": 1.0}], {}) == [{"red/red": 1.0}]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("concepts", "said"),
    [
        ({"clip": {"x": ("x",)}}, "concepts for the model 'clip', and of those that know texts words is loaded"),
        ({"red": {"x": ("x",)}}, "concepts for the model 'red'"),
        ({"words": {"x": ("x",), "empty": ()}}, "the concept 'empty' of the model 'words' has no text"),
    ],
)
def test_concepts_that_no_loaded_model_gives_are_refused_by_name(
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]], said: str
) -> None:
    with pytest.raises(ConceptsUnusable, match=said):
        asyncio.run(Concepts([WordModel(), RedModel()]).prepare(Asking("p", concepts)))
    with pytest.raises(ConceptsUnusable, match="no model is loaded that knows texts"):
        asyncio.run(Concepts([RedModel()]).prepare(Asking("p", {"words": {"x": ("x",)}})))
