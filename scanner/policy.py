"""Policies: from the scores of frames to a decision.

A policy is a TOML file::

    [policy]
    name = "default-cpu"
    description = "..."

    [[rule]]
    name = "sexual"
    says = "Looks sexual to two models."          # for moderators
    decision = "reject"                           # accept, review or reject
    when = { all = [
        { score = "safety-s/NSFW", at_least = 0.5 },
        { any = [ { score = "open-nsfw/nsfw", at_least = 0.2 }, ... ] },
    ] }

A rule fires when its condition holds in at least one frame. The strongest decision among the rules that fired wins
(reject, then review, then accept); when none fires the image is accepted. How far a frame is beyond a rule is its
margin: score minus threshold, the smallest of ``all``, the largest of ``any``; so a margin >= 0 means that the rule
fires, and the frame with the largest margin is the worst.
"""

import hashlib
import importlib.resources
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.messages import Decision, RuleFired

_STRENGTH = {Decision.ACCEPT: 0, Decision.REVIEW: 1, Decision.REJECT: 2}


class PolicyError(Exception):
    """A policy file is wrong. The message gives file, line where it is known, what is wrong and what is allowed."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Holds when the score named ``model/label`` is at least `threshold`."""

    score: str
    threshold: float

    def margin(self, scores: Mapping[str, float]) -> float:
        """Return score minus threshold."""
        return scores[self.score] - self.threshold


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds when every condition does."""

    conditions: tuple["Condition", ...]

    def margin(self, scores: Mapping[str, float]) -> float:
        """Return the smallest margin."""
        return min(condition.margin(scores) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one condition does."""

    conditions: tuple["Condition", ...]

    def margin(self, scores: Mapping[str, float]) -> float:
        """Return the largest margin."""
        return max(condition.margin(scores) for condition in self.conditions)


Condition = AtLeast | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `says` is the plain sentence that moderators read."""

    name: str
    says: str
    decision: Decision
    when: Condition


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a policy makes of an image.

    `rules` are all that fired, each with the frame (index) it saw worst. `worst_frame` is the worst under the winning
    rules, or, when none fired, the one that came nearest to any. `scores` holds the highest of all frames per
    ``model/label``.
    """

    decision: Decision
    rules: tuple[RuleFired, ...]
    worst_frame: int
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy. One without rules accepts everything."""

    name: str
    description: str
    rules: tuple[Rule, ...]
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Digest of what decides: 16 hex digits of SHA-256 over the rules in canonical form.

        Comments, layout, the order of keys and the texts for people do not change it.
        """
        canonical: list[Any] = [[rule.name, rule.decision.value, _canonical(rule.when)] for rule in self.rules]
        if self.concepts:
            canonical.append({model: dict(concepts) for model, concepts in self.concepts.items()})
        return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()[:16]

    def judge(self, frames: Sequence[Mapping[str, float]]) -> Judgement:
        """Judge an image by the scores of its frames (at least one; every score that a rule names must be there)."""
        fired = []
        margins = []
        for rule in self.rules:
            margin, frame = max((rule.when.margin(scores), -index) for index, scores in enumerate(frames))
            margins.append((margin, -frame, rule.decision))
            if margin >= 0.0:
                fired.append(RuleFired(name=rule.name, decision=rule.decision, frame=-frame))
        decision = max((rule.decision for rule in fired), key=_STRENGTH.__getitem__, default=Decision.ACCEPT)
        counting = [m for m in margins if m[0] >= 0.0 and m[2] is decision] if fired else margins
        worst = max(counting, key=lambda m: m[0], default=(0.0, 0, decision))[1]
        highest = {label: max(scores[label] for scores in frames) for label in frames[0]}
        return Judgement(decision, tuple(fired), worst, highest)


def load_policy(path: Path | None, labels: Collection[str]) -> Policy:
    """Read a policy file, the default one when `path` is None, for models that give `labels`.

    Raises `PolicyError`.
    """
    if path is None:
        default = importlib.resources.files(__package__).joinpath("policies/default-cpu.toml")
        return parse_policy(default.read_text(encoding="utf-8"), labels, source="policies/default-cpu.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: the policy file cannot be read: {error}; see scanner.policy") from error
    return parse_policy(text, labels, source=str(path))


def parse_policy(text: str, labels: Collection[str], *, source: str) -> Policy:
    """Parse a policy from `text`; `source` names it in errors. Raises `PolicyError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: not valid TOML: {error}") from error
    return _Parser(text, frozenset(labels), source).policy(document)


def _canonical(condition: Condition) -> list[Any]:
    match condition:
        case AtLeast(score, threshold):
            return ["at_least", score, threshold]
        case AllOf(conditions):
            return ["all", *(_canonical(part) for part in conditions)]
        case AnyOf(conditions):
            return ["any", *(_canonical(part) for part in conditions)]


class _Parser:
    """Turns a TOML document into a `Policy`; keeps the text, because tomllib does not tell lines."""

    def __init__(self, text: str, labels: frozenset[str], source: str) -> None:
        self._lines = text.splitlines()
        self._labels = labels
        self._source = source
        self._first_line, self._end_line = 0, len(self._lines)

    def policy(self, document: dict[str, Any]) -> Policy:
        self._only(document, {"policy", "rule"}, "the file")
        head = self._table(document.get("policy"), "[policy]")
        self._only(head, {"name", "description"}, "[policy]")
        rules = document.get("rule", [])
        if not isinstance(rules, list) or not rules:
            raise self._wrong("a policy needs at least one [[rule]]")
        starts = [number for number, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)]
        parsed: list[Rule] = []
        for index, rule in enumerate(rules):
            # A policy may also write its rules as one inline array: then no line of a rule is known.
            if len(starts) == len(rules):
                self._first_line, self._end_line = starts[index], [*starts[1:], len(self._lines)][index]
            parsed.append(self._rule(self._table(rule, "[[rule]]")))
            if parsed[-1].name in [before.name for before in parsed[:-1]]:
                raise self._wrong(f"there are two rules named {parsed[-1].name!r}", parsed[-1].name)
        self._first_line, self._end_line = 0, len(self._lines)
        return Policy(self._text(head, "name", "[policy]"), str(head.get("description", "")), tuple(parsed))

    def _rule(self, rule: dict[str, Any]) -> Rule:
        name = self._text(rule, "name", "a [[rule]]")
        where = f"rule {name!r}"
        self._only(rule, {"name", "says", "decision", "when"}, where)
        says = self._text(rule, "says", where)
        word = self._text(rule, "decision", where)
        if word not in list(Decision):
            raise self._wrong(f"{where}: decision is {word!r}; it must be accept, review or reject", word)
        if "when" not in rule:
            raise self._wrong(f"{where}: 'when' is missing")
        return Rule(name, says, Decision(word), self._condition(rule["when"], where))

    def _condition(self, value: Any, where: str) -> Condition:
        table = self._table(value, f"{where}: 'when'")
        for word, kind in (("all", AllOf), ("any", AnyOf)):
            if word in table:
                self._only(table, {word}, f"{where}: a condition with {word!r}")
                parts = table[word]
                if not isinstance(parts, list) or not parts:
                    raise self._wrong(f"{where}: {word!r} must be a list of at least one condition", word)
                return kind(tuple(self._condition(part, where) for part in parts))
        self._only(table, {"score", "at_least"}, f"{where}: a condition")
        score = self._text(table, "score", where)
        if score not in self._labels:
            known = ", ".join(sorted(self._labels))
            raise self._wrong(f"{where}: no model gives the score {score!r}; there are {known}", score)
        threshold = table.get("at_least")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.0 <= threshold <= 1.0:
            raise self._wrong(f"{where}: at_least of {score!r} must be a number from 0 to 1, not {threshold!r}", score)
        return AtLeast(score, float(threshold))

    def _table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(f"{where} must be there, and be a table")
        return value

    def _text(self, table: dict[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(f"{where}: {key!r} must be there, and be a text", key)
        return value

    def _only(self, table: dict[str, Any], allowed: set[str], where: str) -> None:
        for key in table:
            if key not in allowed:
                allow = ", ".join(sorted(allowed))
                raise self._wrong(f"{where} has an unknown key {key!r}; there may be {allow}", key)

    def _wrong(self, what: str, token: str | None = None) -> PolicyError:
        """Make the error, with the line of the first `token` in the present rule, else of the rule itself."""
        numbered = list(enumerate(self._lines, start=1))[self._first_line : self._end_line]
        found = next((number for number, line in numbered if token and token in line), None)
        line = found or (self._first_line + 1 if self._first_line else None)
        return PolicyError(f"{self._source}{f', line {line}' if line else ''}: {what}")
