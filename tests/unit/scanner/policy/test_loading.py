# ruff: noqa: E501 - one mutation a line
"""Policy files: what a wrong one is told, with line, column and remedy; the shipped ones; whose policy is whose."""

from pathlib import Path

import pytest

from scanner.models.loading import every_embedder, every_label
from scanner.policy import Policy, PolicyError, load_policies, load_policy, parse_policy, shipped_policies
from schemas.messages import Decision

TEXT = """\
[policy]
name = "mutated"
description = "For the mutations below."
models = ["clip", "a", "b"]

[[concept]]
names = ["child", "teen"]

[[concept]]
name = "old"
prompts = ["an old man", "an old woman"]

[[group]]
name = "young"
above = { "clip/child" = 0.2, "clip/teen" = 0.25 }

[[group]]
name = "shapes"
at_least = { "b/z" = 0.5 }
members = [{ any = "young" }]

[[adjustment]]
name = "old people"
when = { score = "clip/old", above = 0.3 }
change = [
    { score = "clip/child", by = -0.1, unless = { score = "clip/teen", above = 0.2 } },
    { group = "young", by = 0.01 },
]

[[rule]]
name = "both"
says = "Both say so."
decision = "reject"
when = { all = [{ any = "young" }, { score = "a/x", at_least = 0.8 }, { at_least = 1, of = "shapes" }] }

[[rule]]
name = "either"
says = "One says so."
decision = "review"
media = ["video"]
when = { any = [{ score = "a/x", at_least = 0.6 }, { none = [{ score = "a/y", above = 0.6 }] }] }
"""


def parse(text: str, embedders: tuple[str, ...] = ("clip",)) -> Policy:
    return parse_policy(text, ("a/x", "a/y", "b/z"), source="policy.toml", embedders=embedders)


MUTATIONS: list[tuple[str, str, int, int, str]] = [
    # old text, new text, line, column, what is said and what to do
    ("[policy]", "[polcy]", 1, 1, "the file has an unknown key 'polcy'; there may be adjustment, concept, group, policy"),
    ('name = "mutated"', 'nam = "mutated"', 2, 1, "[policy] has an unknown key 'nam'; there may be description, models"),
    ('name = "mutated"', "", 1, 1, "[policy]: 'name' must be there, and be a text"),
    ('name = "mutated"', "name = 5", 2, 8, "[policy]: 'name' must be there, and be a text"),
    ('"For the mutations below."', "[]", 3, 15, "[policy]: 'description' must be there, and be a text"),
    ('["clip", "a", "b"]', '["clip", "a", "b", "c"]', 4, 29, "lists the model 'c', of which nothing uses a score; remove"),
    ('["clip", "a", "b"]', '["clip", "a"]', 4, 10, "does not list every model that is used; add 'b'"),
    ('["clip", "a", "b"]', '"clip"', 4, 10, "'models' must be a list of at least one text"),
    ('["clip", "a", "b"]', '["clip", 1]', 4, 19, "'models' holds 1, which is no text"),
    ("[[concept]]\nnames", "[concept]\nnames", 9, 10, "not valid TOML: Cannot overwrite a value"),
    ("names = ", "nmaes = ", 7, 1, "a [[concept]] has an unknown key 'nmaes'; there may be model, name, names, prompts"),
    ('names = ["child", "teen"]', "", 6, 1, "a [[concept]] has either a 'name', or 'names' that are their own prompts"),
    ('["child", "teen"]', '["child", "child"]', 7, 19, "there are two concepts named 'child'; remove one"),
    ('["child", "teen"]', '["child", "te/en"]', 7, 19, "concept 'te/en': a name has no '/' and no space at its ends"),
    ('["child", "teen"]', '["child", "teen", "idle"]', 7, 27, "concept 'clip/idle' is used by no rule; use it or remove"),
    ('["child", "teen"]', '["child", "teen"]\nmodel = "vit"', 8, 9, "no model 'vit' here takes the prompts of concepts (there"),
    ('["child", "teen"]', '["child", "teen"]\nprompts = ["x"]', 8, 11, "'names' are their own prompts; use 'name' to give"),
    ('["an old man", "an old woman"]', "[]", 11, 11, "concept 'old': 'prompts' must be a list of at least one text"),
    ('"an old woman"]', '"an old man"]', 11, 26, "concept 'old' has the prompt 'an old man' twice"),
    ("above = {", "abov = {", 15, 1, "group 'young' has an unknown key 'abov'; there may be above, at_least, members, name"),
    ('"clip/child" = 0.2', '"clip/kid" = 0.2', 15, 11, "group 'young': no model gives the score 'clip/kid'"),
    ('"clip/child" = 0.2', '"clip/chidl" = 0.2', 15, 11, "no model gives the score 'clip/chidl'; did you mean 'clip/child'?"),
    ('"clip/child" = 0.2', '"clip/child" = 2', 15, 26, "group 'young': above of 'clip/child' must be a number from 0 to 1, not 2"),
    ('{ "clip/child" = 0.2, "clip/teen" = 0.25 }', "{}", 13, 1, "group 'young' has no members; give scores with"),
    ('name = "shapes"', 'name = "young"', 18, 8, "there are two groups named 'young'; remove one"),
    ('members = [{ any = "young" }]', "members = []", 20, 11, "'members' must be a list of at least one condition"),
    ('members = [{ any = "young" }]', 'members = [{ any = "shapes" }]', 20, 20, "group 'shapes': there is no group 'shapes' above"),
    ('name = "old people"', "", 22, 1, "an [[adjustment]]: 'name' must be there, and be a text"),
    ("change = [", "changes = [", 25, 1, "adjustment 'old people' has an unknown key 'changes'; there may be change, name"),
    ("above = 0.3 }", "above = 1.0 }", 24, 8, "adjustment 'old people': this condition can never hold; lower the threshold"),
    ("by = -0.1", "by = 0", 26, 34, "adjustment 'old people': 'by' must be a number from -1 to 1 other than 0, not 0"),
    ("by = -0.1", 'by = "x"', 26, 34, "'by' must be a number from -1 to 1 other than 0, not 'x'"),
    ('{ group = "young", by', '{ group = "shapes", by', 27, 15, "adjustment 'old people': group 'shapes' holds more than plain"),
    ('{ group = "young", by', '{ group = "yuong", by', 27, 15, "there is no group 'yuong' above; did you mean 'young'?"),
    ('{ group = "young", by', "{ by", 27, 5, "adjustment 'old people': a change names either a 'score' or a 'group'"),
    ('{ group = "young", by', '{ score = "a/y", bye', 27, 22, "a change has an unknown key 'bye'; there may be by, group, score"),
    ('{ score = "clip/child", by', '{ score = "clip/old", by', 25, 10, "changes 'clip/old', which nothing looks at; remove that"),
    ('name = "both"\n', "", 30, 1, "a [[rule]]: 'name' must be there, and be a text"),
    ('says = "Both say so."', "", 30, 1, "rule 'both': 'says' must be there, and be a text"),
    ('decision = "reject"', 'decision = "block"', 33, 12, "decision is 'block'; it must be accept, review or reject"),
    ('{ any = "young" }, {', '{ any = "yung" }, {', 34, 25, "rule 'both': there is no group 'yung' above; did you mean 'young'?"),
    ("at_least = 0.8", "at_least = 1.5", 34, 64, "at_least of 'a/x' must be a number from 0 to 1, not 1.5"),
    ("at_least = 0.8", "at_most = 0.8", 34, 53, "a condition has an unknown key 'at_most'; there may be above, at_least, score"),
    ("at_least = 0.8", "at_least = 0.8, above = 0.8", 34, 36, "'a/x' needs either 'at_least' or 'above' with a number"),
    ("at_least = 1, of", "at_least = 3, of", 34, 84, "rule 'both': at_least of 2 must be a whole number from 1 to 2, not 3"),
    ("at_least = 0.8", "at_least = 0.0", 34, 8, "the part 'a/x at least 0' holds for every picture; raise the threshold of"),
    ('name = "either"', 'name = "both"', 37, 8, "there are two rules named 'both'; rename one"),
    ('["video"]', '["film"]', 40, 10, "rule 'either': media is 'film'; it must be image, animation or video"),
    ('["video"]', '"video"', 40, 9, "rule 'either': 'media' must be a list of at least one text"),
    ('{ any = [{ score = "a/x"', '{ any = [{ scor = "a/x"', 41, 19, "rule 'either': a condition has an unknown key 'scor'; there may"),
    ('{ any = [{ score = "a/x"', '{ any = [{ score = "a/q"', 41, 27, "no model gives the score 'a/q'; did you mean"),
    ("{ none = [", "{ none = [], x = [", 41, 65, "a condition with 'none' has an unknown key 'x'; there may be none"),
    ('{ score = "a/y", above = 0.6 }', '{ score = "a/y", above = 1 }', 41, 8, "the part 'a/y above 1' can never hold; lower the"),
    ("{ none = [", "{ all = [{ score = \"a/x\", above = 0.9 }, { none = [{ score = \"a/x\", above = 0.8 }] }] }, { none = [", 41, 8, "can never hold; its parts exclude or repeat one another"),
    ('when = { any = [{ score = "a/x", at_least = 0.6 }', 'when = { all = [{ any = "young" }, { score = "a/x", above = 0.9 }, { any = "shapes" }', 36, 1, "rule 'either' never changes a decision: whenever it fires, 'both' fires too (reject); remove it, or ask"),
    ("says = ", "says == ", 32, 7, "not valid TOML: Invalid value"),
    ("}] }] }\n", "}] }", 41, 95, "not valid TOML: Unclosed array"),
]  # fmt: skip


def test_the_text_that_is_mutated_is_a_policy() -> None:
    assert [rule.name for rule in parse(TEXT).rules] == ["both", "either"]
    assert len(MUTATIONS) >= 50


@pytest.mark.parametrize(("old", "new", "line", "column", "said"), MUTATIONS, ids=range(len(MUTATIONS)))
def test_a_wrong_policy_is_refused_with_line_column_and_remedy(
    old: str, new: str, line: int, column: int, said: str
) -> None:
    assert old in TEXT
    with pytest.raises(PolicyError) as caught:
        parse(TEXT.replace(old, new, 1))
    assert said in caught.value.what
    assert (caught.value.line, caught.value.column) == (line, column), caught.value
    assert str(caught.value).startswith(f"policy.toml, line {line}, column {column}: ")


def test_a_file_without_rules_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"line 1, column 1: a policy needs at least one \[\[rule\]\]"):
        parse('[policy]\nname = "x"\n')


def test_concepts_without_a_model_for_them_name_the_setting() -> None:
    with pytest.raises(
        PolicyError, match=r"no model 'clip' here takes .* \(there is none\); add it to scanner\.models"
    ):
        parse(TEXT, embedders=())


def test_a_rule_that_two_stronger_ones_cover_together_is_refused_with_both_names() -> None:
    rules = """
[policy]
name = "covered"
[[rule]]
name = "low"
says = "Low."
decision = "reject"
when = { none = [{ score = "a/x", above = 0.5 }] }
[[rule]]
name = "high"
says = "High."
decision = "reject"
when = { score = "a/x", above = 0.4 }
[[rule]]
name = "idle"
says = "Nothing is left for it."
decision = "review"
when = { score = "a/y", above = 0.5 }
"""
    with pytest.raises(PolicyError, match=r"line 14.*'idle' never changes a decision.*'low' and 'high' fire too"):
        parse(rules)
    still = parse(rules.replace('when = { score = "a/x", above = 0.4 }', 'when = { score = "a/x", above = 0.6 }'))
    assert still.judge([{"a/x": 0.55, "a/y": 0.9}]).decision is Decision.REVIEW


def test_a_stronger_rule_for_other_media_covers_nothing() -> None:
    text = TEXT.replace('{ any = [{ score = "a/x", at_least = 0.6 }', '{ any = [{ score = "a/x", at_least = 0.9 }')
    text = text.replace('{ none = [{ score = "a/y", above = 0.6 }] }', '{ score = "a/x", above = 0.95 }')
    parse(text)


def test_a_rule_that_accepts_may_note_what_others_decide() -> None:
    noted = '[[rule]]\nname = "noted"\nsays = "Red."\ndecision = "accept"\nwhen = { score = "a/x", at_least = 0.9 }\n'
    policy = parse(f"{TEXT}\n{noted}")
    assert [rule.name for rule in policy.rules] == ["both", "either", "noted"]


def test_a_policy_file_that_is_not_there_is_named_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"missing\.toml: .*scanner\.policy names a file, or one of default-clip, "):
        load_policy(tmp_path / "missing.toml", ())


def test_five_policies_come_with_fediwarden_and_each_says_what_it_was_and_was_not_measured_on() -> None:
    assert shipped_policies() == ("default-clip", "default-cpu", "horde-parity", "observe", "strict")
    for name in shipped_policies():
        policy = load_policy(Path(name), every_label(), every_embedder())
        assert policy.name == name
        assert policy.description
        text = Path("scanner/policies", f"{name}.toml").read_text()
        head = text[: text.index("[policy]")]
        assert "easured" in head and head.startswith("# ")


def test_the_default_policy_needs_both_default_models() -> None:
    policy = load_policy(None, every_label())
    assert policy.id == "3697bd6c821af53f"  # docs/models.md has figures for it
    with pytest.raises(PolicyError, match=r"line 18, column 72.*no model gives the score 'open-nsfw/nsfw'"):
        load_policy(None, ("safety-s/NSFL", "safety-s/NSFW"))


def test_observe_never_refuses_anything_and_strict_refuses_what_the_default_has_reviewed() -> None:
    worst = {"safety-s/NSFW": 1.0, "safety-s/NSFL": 1.0, "open-nsfw/nsfw": 1.0}
    observe = load_policy(Path("observe"), every_label())
    assert observe.judge([worst]).decision is Decision.ACCEPT
    assert len(observe.judge([worst]).rules) == 4
    doubtful = {"safety-s/NSFW": 0.6, "safety-s/NSFL": 0.1, "open-nsfw/nsfw": 0.3}
    assert load_policy(None, every_label()).judge([doubtful]).decision is Decision.REVIEW
    assert load_policy(Path("strict"), every_label()).judge([doubtful]).decision is Decision.REJECT


def test_default_clip_asks_for_both_signs_and_takes_a_classifiers_word_for_one() -> None:
    policy = load_policy(Path("default-clip"), every_label(), every_embedder())
    harmless = dict.fromkeys(policy.scores, 0.1)
    family = harmless | {"clip/child": 0.23}
    assert policy.judge([family]).decision is Decision.ACCEPT
    assert policy.judge([harmless | {"safety-s/NSFW": 0.9, "open-nsfw/nsfw": 0.9}]).decision is Decision.REVIEW
    assert policy.judge([family | {"open-nsfw/nsfw": 0.9}]).decision is Decision.REJECT
    assert policy.judge([family | {"clip/naked": 0.2}]).decision is Decision.REJECT
    assert policy.judge([family | {"clip/naked": 0.2, "clip/pregnant": 0.22}]).decision is Decision.ACCEPT


def test_each_tenant_has_its_own_policy_or_everyones(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(TEXT[: TEXT.index("models")] + TEXT[TEXT.index("[[concept]]") :])
    labels = (*every_label(), "a/x", "a/y", "b/z")
    policies = load_policies(None, {"little": Path("strict"), "other": own}, labels, every_embedder())
    assert policies.of("little").name == "strict"
    assert policies.of("anyone").name == "default-cpu"
    assert policies.ids == {
        "*": policies.everyone.id,
        "little": policies.of("little").id,
        "other": policies.of("other").id,
    }
    assert [policy.name for policy in policies.all] == ["default-cpu", "strict", "mutated"]


MANUAL = Path(__file__).parents[4] / "docs" / "policies.md"


def test_the_manuals_example_is_a_policy_and_its_error_is_what_one_gets() -> None:
    manual = MANUAL.read_text()
    example = next(block for block in manual.split("```toml\n") if block.startswith("[policy]")).split("```")[0]
    assert parse_policy(example, every_label(), source="ours.toml", embedders=every_embedder()).models == {
        "clip",
        "safety-s",
    }
    with pytest.raises(PolicyError) as caught:
        parse_policy(
            example.replace('of = "young"', 'of = "yuong"'),
            every_label(),
            source="ours.toml",
            embedders=every_embedder(),
        )
    assert f"$ fediwarden policy check ours.toml\n{caught.value}\n" in manual


def test_the_manual_names_every_policy_that_comes_along() -> None:
    assert all(f"| `{name}` |" in MANUAL.read_text() for name in shipped_policies())
