"""Zero-shot concepts: what a policy asks an embedder about, as scores.

A concept is a name and the texts that describe it. Its text feature is the mean of the texts' unit vectors, made a
unit vector again; its score in a frame is the cosine between that and the frame's vector, from 0 (what is below is cut)
to 1, under the name ``model/concept``. So an image passes through the model once, whatever the number of policies.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np

from scanner.models.model import Embedder, Features, Model, ModelError, is_embedder
from scanner.scoring import FrameScores

ConceptPrompts = Mapping[str, tuple[str, ...]]
"""The texts of each concept, by its name."""


class ConceptsUnusable(ModelError):
    """A policy asks for concepts that the loaded models cannot give; the message names model and concept."""


class Conceptual(Protocol):
    """What is wanted of a policy here: an id that changes with its concepts, and those, by model name."""

    @property
    def id(self) -> str:
        """Digest of what decides, the concepts' texts included."""

    @property
    def concepts(self) -> Mapping[str, ConceptPrompts]:
        """The concepts that each model is asked about."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PolicyConcepts:
    """The text features of one policy's concepts: for each model the concepts' names and vectors, in one order."""

    by_model: dict[str, tuple[tuple[str, ...], Features]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The ``model/concept`` names of all scores, in order."""
        return tuple(f"{model}/{concept}" for model, (concepts, _) in self.by_model.items() for concept in concepts)

    def score(self, frames: Sequence[FrameScores], features: Mapping[str, Features]) -> list[FrameScores]:
        """Return each frame's scores with those of the concepts; `features` are the frames' vectors, by model name."""
        complete = [dict(scores) for scores in frames]
        for model, (concepts, texts) in self.by_model.items():
            similarities = np.clip(features[model] @ texts.T, 0.0, 1.0)
            names = [f"{model}/{concept}" for concept in concepts]
            for scores, row in zip(complete, similarities.tolist(), strict=True):
                scores.update(zip(names, row, strict=True))
        return complete


class Concepts:
    """Makes policies' concepts ready, once for each policy that is in use. Belongs to one event loop."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._embedders: dict[str, Embedder] = {model.name: model for model in models if is_embedder(model)}
        self._ready: WeakValueDictionary[str, PolicyConcepts] = WeakValueDictionary()

    async def prepare(self, policy: Conceptual) -> PolicyConcepts:
        """Return a policy's text features, computed in a thread when they are not there: seconds.

        They are kept for as long as somebody holds them. Raises `ConceptsUnusable`, or what `Embedder.embed_texts`
        raises.
        """
        ready = self._ready.get(policy.id)
        if ready is None:
            ready = await asyncio.to_thread(embed_concepts, self._embedders, policy.concepts)
            self._ready[policy.id] = ready
        return ready

    async def prepare_all(self, policies: Sequence[Conceptual]) -> dict[str, PolicyConcepts]:
        """Return the text features of each policy, by its id. Raises as `prepare`."""
        return {policy.id: await self.prepare(policy) for policy in policies}


def embed_concepts(embedders: Mapping[str, Embedder], concepts: Mapping[str, ConceptPrompts]) -> PolicyConcepts:
    """Compute the text features of concepts; blocks for seconds. Raises as `Concepts.prepare`."""
    by_model = {}
    for name, asked in concepts.items():
        if name not in embedders:
            raise ConceptsUnusable(
                f"the policy has concepts for the model {name!r}, and {_loaded(embedders)}; see scanner.models"
            )
        by_model[name] = (tuple(asked), _text_features(embedders[name], asked))
    return PolicyConcepts(by_model)


def _text_features(model: Embedder, asked: ConceptPrompts) -> Features:
    if empty := [concept for concept, texts in asked.items() if not texts]:
        raise ConceptsUnusable(f"the concept {empty[0]!r} of the model {model.name!r} has no text")
    if not asked:
        return np.zeros((0, model.dimensions), dtype=np.float32)
    vectors = model.embed_texts([text for texts in asked.values() for text in texts])
    means = []
    start = 0
    for texts in asked.values():
        means.append(vectors[start : start + len(texts)].mean(axis=0))
        start += len(texts)
    features = np.stack(means)
    unit: Features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _loaded(embedders: Mapping[str, Embedder]) -> str:
    if not embedders:
        return "no model is loaded that knows texts"
    return f"of those that know texts {', '.join(embedders)} is loaded"
