"""From the text of a policy file to a checked policy."""

import re
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, TypeVar

from scanner.policy.adjustments import Adjustment, Change
from scanner.policy.checks import find_problems
from scanner.policy.conditions import AllOf, AnyOf, AtLeast, Compound, Condition, CountOf, NoneOf
from scanner.policy.errors import PolicyError
from scanner.policy.judging import EVERY_KIND, MediaKind, Policy, Rule
from scanner.policy.positions import Path, Positions, find_positions
from schemas.messages import Decision

Named = TypeVar("Named", Rule, Adjustment)

_PLACE = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)
_DEFAULT_EMBEDDER = "clip"
_COMPOUNDS: dict[str, type[AllOf] | type[AnyOf] | type[NoneOf]] = {"all": AllOf, "any": AnyOf, "none": NoneOf}
_MOST_BY = 1.0


def parse_policy(text: str, labels: Collection[str], *, source: str, embedders: Collection[str] = ()) -> Policy:
    """Parse and check a policy; `source` names it in errors.

    `labels` are the scores (``model/label``) that classifiers give, `embedders` the names of the models that compare
    pictures with the prompts of concepts. Raises `PolicyError` about the first thing that is wrong.
    """
    try:
        document = tomllib.loads(text)
        return _Parser(find_positions(text), frozenset(labels), frozenset(embedders), source).policy(document)
    except RecursionError as error:
        raise PolicyError(source, "brackets or conditions are nested hundreds deep; say it with fewer") from error
    except tomllib.TOMLDecodeError as error:
        matched = _PLACE.fullmatch(str(error))
        what = f"not valid TOML: {matched['what'] if matched else error}"
        if matched is None or matched["line"] is None:
            lines = text.split("\n")  # a form feed ends no line of TOML
            raise PolicyError(source, what, line=len(lines), column=len(lines[-1]) + 1) from error
        raise PolicyError(source, what, line=int(matched["line"]), column=int(matched["column"])) from error


class _Parser:
    """Turns a TOML document into a `Policy`; a value goes about with its path, by which errors find its place."""

    def __init__(self, positions: Positions, labels: frozenset[str], embedders: frozenset[str], source: str) -> None:
        self._positions = positions
        self._labels = labels
        self._embedders = embedders
        self._source = source
        self._concepts: dict[str, dict[str, tuple[str, ...]]] = {}
        self._concept_paths: dict[str, Path] = {}
        self._groups: dict[str, tuple[Condition, ...]] = {}
        self._group_paths: dict[str, Path] = {}
        self._groups_used: set[str] = set()

    def policy(self, document: dict[str, Any]) -> Policy:
        self._only(document, (), {"policy", "concept", "group", "adjustment", "rule"}, "the file")
        head = self._table(document.get("policy"), ("policy",), "[policy]")
        self._only(head, ("policy",), {"name", "description", "models"}, "[policy]")
        name = self._text(head, ("policy",), "name", "[policy]")
        description = self._text(head, ("policy",), "description", "[policy]") if "description" in head else ""
        for index, value in enumerate(self._list(document, "concept")):
            self._concept(value, ("concept", index))
        for index, value in enumerate(self._list(document, "group")):
            self._group(value, ("group", index))
        adjustments = [
            self._adjustment(value, ("adjustment", index))
            for index, value in enumerate(self._list(document, "adjustment"))
        ]
        rules = [self._rule(value, ("rule", index)) for index, value in enumerate(self._list(document, "rule"))]
        if not rules:
            raise self._wrong(("policy",), "a policy needs at least one [[rule]]")
        self._check_names(adjustments, "adjustment")
        self._check_names(rules, "rule")
        policy = Policy(name, description, tuple(rules), tuple(adjustments), self._concepts)
        self._check_models(head, policy)
        self._check_used(policy)
        for problem in find_problems(policy):
            raise self._wrong(problem.path, problem.what)
        return policy

    def _concept(self, value: Any, path: Path) -> None:
        table = self._table(value, path, "a [[concept]]")
        self._only(table, path, {"name", "names", "prompts", "model"}, "a [[concept]]")
        if ("name" in table) == ("names" in table):
            raise self._wrong(path, "a [[concept]] has either a 'name', or 'names' that are their own prompts")
        model = self._text(table, path, "model", "a [[concept]]") if "model" in table else _DEFAULT_EMBEDDER
        if model not in self._embedders:
            there = f"there are {', '.join(sorted(self._embedders))}" if self._embedders else "there is none"
            raise self._wrong(
                (*path, "model"),
                f"no model {model!r} here takes the prompts of concepts ({there}); add it to scanner.models",
            )
        if "names" in table:
            if "prompts" in table:
                raise self._wrong((*path, "prompts"), "'names' are their own prompts; use 'name' to give others")
            for index, name in enumerate(self._texts(table, path, "names", "a [[concept]]")):
                self._add_concept(model, name, (name,), (*path, "names", index))
            return
        name = self._text(table, path, "name", "a [[concept]]")
        prompts = self._texts(table, path, "prompts", f"concept {name!r}") if "prompts" in table else [name]
        for index, prompt in enumerate(prompts):
            if prompt in prompts[:index]:
                raise self._wrong((*path, "prompts", index), f"concept {name!r} has the prompt {prompt!r} twice")
        self._add_concept(model, name, tuple(prompts), (*path, "name"))

    def _add_concept(self, model: str, name: str, prompts: tuple[str, ...], path: Path) -> None:
        score = f"{model}/{name}"
        if "/" in name or name != name.strip():
            raise self._wrong(path, f"concept {name!r}: a name has no '/' and no space at its ends")
        if score in self._concept_paths:
            raise self._wrong(path, f"there are two concepts named {name!r}; remove one")
        self._concepts.setdefault(model, {})[name] = prompts
        self._concept_paths[score] = path

    def _group(self, value: Any, path: Path) -> None:
        table = self._table(value, path, "a [[group]]")
        name = self._text(table, path, "name", "a [[group]]")
        where = f"group {name!r}"
        self._only(table, path, {"name", "above", "at_least", "members"}, where)
        if name in self._groups:
            raise self._wrong((*path, "name"), f"there are two groups named {name!r}; remove one")
        members: list[Condition] = []
        for word in ("at_least", "above"):
            thresholds = self._table(table.get(word, {}), (*path, word), f"{where}: {word!r}")
            members += [self._threshold(score, thresholds, (*path, word), score, word, where) for score in thresholds]
        if "members" in table:
            members += self._conditions(table["members"], (*path, "members"), where)
        if not members:
            raise self._wrong(path, f"{where} has no members; give scores with thresholds under 'above' or 'at_least'")
        self._groups[name] = tuple(members)
        self._group_paths[name] = path

    def _adjustment(self, value: Any, path: Path) -> Adjustment:
        table = self._table(value, path, "an [[adjustment]]")
        name = self._text(table, path, "name", "an [[adjustment]]")
        where = f"adjustment {name!r}"
        self._only(table, path, {"name", "says", "when", "change"}, where)
        says = self._text(table, path, "says", where) if "says" in table else ""
        when = self._condition(table["when"], (*path, "when"), where) if "when" in table else None
        changes = table.get("change")
        if not isinstance(changes, list) or not changes:
            raise self._wrong((*path, "change"), f"{where}: 'change' must be a list of at least one change")
        changed = tuple(
            each
            for index, value in enumerate(changes)
            for each in self._changes(value, (*path, "change", index), where)
        )
        return Adjustment(name, changed, when, says)

    def _changes(self, value: Any, path: Path, where: str) -> list[Change]:
        table = self._table(value, path, f"{where}: a change")
        self._only(table, path, {"score", "group", "by", "unless"}, f"{where}: a change")
        if ("score" in table) == ("group" in table):
            raise self._wrong(path, f"{where}: a change names either a 'score' or a 'group'")
        by = table.get("by")
        if isinstance(by, bool) or not isinstance(by, int | float) or by == 0 or not -_MOST_BY <= by <= _MOST_BY:
            raise self._wrong((*path, "by"), f"{where}: 'by' must be a number from -1 to 1 other than 0, not {by!r}")
        unless = self._condition(table["unless"], (*path, "unless"), where) if "unless" in table else None
        if "score" in table:
            return [Change(self._score(table, path, where), float(by), unless)]
        members = self._members(table["group"], (*path, "group"), where)
        scores = dict.fromkeys(member.score for member in members if isinstance(member, AtLeast))
        if len(scores) < len(members):
            raise self._wrong((*path, "group"), f"{where}: group {table['group']!r} holds more than plain scores")
        return [Change(score, float(by), unless) for score in scores]

    def _rule(self, value: Any, path: Path) -> Rule:
        table = self._table(value, path, "a [[rule]]")
        name = self._text(table, path, "name", "a [[rule]]")
        where = f"rule {name!r}"
        self._only(table, path, {"name", "says", "decision", "media", "when"}, where)
        says = self._text(table, path, "says", where)
        decision = self._word(table, path, "decision", list(Decision), where)
        if "when" not in table:
            raise self._wrong(path, f"{where}: 'when' is missing: say which scores make it fire")
        when = self._condition(table["when"], (*path, "when"), where)
        return Rule(name, says, Decision(decision), when, self._media(table, path, where))

    def _media(self, table: dict[str, Any], path: Path, where: str) -> frozenset[MediaKind]:
        if "media" not in table:
            return EVERY_KIND
        words = self._texts(table, path, "media", where)
        for index, word in enumerate(words):
            if word not in list(MediaKind):
                raise self._wrong(
                    (*path, "media", index), f"{where}: media is {word!r}; it must be {_or(list(MediaKind))}"
                )
        return frozenset(map(MediaKind, words))

    def _condition(self, value: Any, path: Path, where: str) -> Condition:
        table = self._table(value, path, f"{where}: a condition")
        for word, kind in _COMPOUNDS.items():
            if word in table:
                self._only(table, path, {word}, f"{where}: a condition with {word!r}")
                return self._compound(kind, table[word], (*path, word), where)
        if "of" in table:
            return self._count(table, path, where)
        self._only(table, path, {"score", "at_least", "above"}, f"{where}: a condition")
        score = self._score(table, path, where)
        if ("at_least" in table) == ("above" in table):
            raise self._wrong(path, f"{where}: {score!r} needs either 'at_least' or 'above' with a number")
        word = "above" if "above" in table else "at_least"
        return self._threshold(score, table, path, word, word, where)

    def _compound(self, kind: type[AllOf] | type[AnyOf] | type[NoneOf], value: Any, path: Path, where: str) -> Compound:
        return kind(self._members(value, path, where), value if isinstance(value, str) else "")

    def _count(self, table: dict[str, Any], path: Path, where: str) -> CountOf:
        self._only(table, path, {"at_least", "of"}, f"{where}: a condition with 'of'")
        members = self._members(table["of"], (*path, "of"), where)
        count = table.get("at_least")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(members):
            raise self._wrong(
                (*path, "at_least"),
                f"{where}: at_least of {len(members)} must be a whole number from 1 to {len(members)}, not {count!r}",
            )
        return CountOf(count, members, table["of"] if isinstance(table["of"], str) else "")

    def _members(self, value: Any, path: Path, where: str) -> tuple[Condition, ...]:
        """The conditions of a list, or of the group that a text names."""
        if not isinstance(value, str):
            return tuple(self._conditions(value, path, where))
        if value not in self._groups:
            raise self._wrong(path, f"{where}: there is no group {value!r} above{_suggest(value, self._groups)}")
        self._groups_used.add(value)
        return self._groups[value]

    def _conditions(self, value: Any, path: Path, where: str) -> list[Condition]:
        if not isinstance(value, list) or not value:
            raise self._wrong(
                path, f"{where}: {path[-1]!r} must be a list of at least one condition, or the name of a group"
            )
        return [self._condition(part, (*path, index), where) for index, part in enumerate(value)]

    def _threshold(self, score: str, table: dict[str, Any], path: Path, key: str, word: str, where: str) -> AtLeast:
        self._check_score(score, (*path, key), where)
        value = table[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
            raise self._wrong((*path, key), f"{where}: {word} of {score!r} must be a number from 0 to 1, not {value!r}")
        return AtLeast(score, float(value), above=word == "above")

    def _score(self, table: dict[str, Any], path: Path, where: str) -> str:
        score = self._text(table, path, "score", where)
        self._check_score(score, (*path, "score"), where)
        return score

    def _check_score(self, score: str, path: Path, where: str) -> None:
        known = self._labels | self._concept_paths.keys()
        if score not in known:
            what = f"{where}: no model gives the score {score!r}{_suggest(score, known)}"
            raise self._wrong(path, what, key=path[-1] == score)

    def _check_names(self, all_named: list[Named], kind: str) -> None:
        seen: set[str] = set()
        for index, each in enumerate(all_named):
            if each.name in seen:
                raise self._wrong((kind, index, "name"), f"there are two {kind}s named {each.name!r}; rename one")
            seen.add(each.name)

    def _check_models(self, head: dict[str, Any], policy: Policy) -> None:
        if "models" not in head:
            return
        listed = self._texts(head, ("policy",), "models", "[policy]")
        for index, model in enumerate(listed):
            if model not in policy.models:
                raise self._wrong(
                    ("policy", "models", index),
                    f"[policy] lists the model {model!r}, of which nothing uses a score; remove it",
                )
        if missing := policy.models - set(listed):
            raise self._wrong(
                ("policy", "models"), f"[policy] does not list every model that is used; add {_and(sorted(missing))}"
            )

    def _check_used(self, policy: Policy) -> None:
        for name, path in self._group_paths.items():
            if name not in self._groups_used:
                raise self._wrong(path, f"group {name!r} is used by no rule; use it or remove it")
        for score, path in self._concept_paths.items():
            if score not in policy.scores:
                raise self._wrong(path, f"concept {score!r} is used by no rule; use it or remove it")

    def _table(self, value: Any, path: Path, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(path, f"{where} must be there, and be a table")
        return value

    def _list(self, document: dict[str, Any], key: str) -> list[Any]:
        value = document.get(key, [])
        if not isinstance(value, list):
            raise self._wrong((key,), f"write [[{key}]] with two brackets: there may be several")
        return value

    def _text(self, table: dict[str, Any], path: Path, key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong((*path, key), f"{where}: {key!r} must be there, and be a text")
        return value

    def _texts(self, table: dict[str, Any], path: Path, key: str, where: str) -> list[str]:
        value = table[key]
        if not isinstance(value, list) or not value:
            raise self._wrong((*path, key), f"{where}: {key!r} must be a list of at least one text")
        for index, text in enumerate(value):
            if not isinstance(text, str) or not text.strip():
                raise self._wrong((*path, key, index), f"{where}: {key!r} holds {text!r}, which is no text")
        return value

    def _word(self, table: dict[str, Any], path: Path, key: str, words: list[Any], where: str) -> str:
        word = self._text(table, path, key, where)
        if word not in words:
            raise self._wrong((*path, key), f"{where}: {key} is {word!r}; it must be {_or(words)}")
        return word

    def _only(self, table: dict[str, Any], path: Path, allowed: set[str], where: str) -> None:
        for key in table:
            if key not in allowed:
                allow = ", ".join(sorted(allowed))
                raise self._wrong((*path, key), f"{where} has an unknown key {key!r}; there may be {allow}", key=True)

    def _wrong(self, path: Path, what: str, *, key: bool = False) -> PolicyError:
        line, column = self._positions.key(path) if key else self._positions.value(path)
        return PolicyError(self._source, what, line=line, column=column)


def _suggest(word: str, known: Collection[str]) -> str:
    if close := get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else "; there is none"


def _or(words: list[Any]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _and(words: list[str]) -> str:
    return " and ".join(map(repr, words))
