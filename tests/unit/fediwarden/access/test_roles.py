import re
from pathlib import Path

import pytest

from federation_audit.lemmy.service import NEEDED_TOPICS as LEMMY_TOPICS
from federation_audit.recording.service import RECORDED_TOPICS
from federation_audit.settings import AuditSettings
from federation_audit.viewing.settings import ViewingSettings
from fediwarden.access.roles import COMMANDS, ROLES, find_roles, rights_of
from fediwarden.settings import Settings
from gateway.enforcement.service import NEEDED_TOPICS as ENFORCER_TOPICS
from gateway.service import _TOPICS as GATEWAY_TOPICS
from scanner.service import NEEDED_TOPICS as SCANNER_TOPICS
from scanner.service import SHADOW_TOPICS
from schemas.broker import Right
from schemas.topics import FEATURES, MODELS_PROMOTED, RESCAN_JOBS, RESCANS, TOPICS

SETTINGS = Settings(audit=AuditSettings(viewing=ViewingSettings(enabled=True)))
TOPICS_PAGE = Path(__file__).parents[4] / "docs" / "topics.md"
DOCUMENTED = re.compile(r"^\| (topic|group)s? `(.+?)`( \(prefixed\))? \| (.+?) \|", re.MULTILINE)


def of(role: str, settings: Settings = SETTINGS) -> set[Right]:
    return {right._replace(name=right.name.removeprefix("fediwarden.")) for right in rights_of(ROLES[role], settings)}


def by_topic(rights: set[Right]) -> dict[str, str]:
    topics: dict[str, list[str]] = {}
    for right in sorted(rights):
        if right.kind == "topic" and right.operation != "DescribeConfigs":
            topics.setdefault(right.name, []).append(right.operation)
    return {name: " ".join(operations) for name, operations in topics.items()}


def test_a_home_scanner_may_judge_what_waits_and_nothing_else() -> None:
    assert by_topic(of("home-scanner")) == {
        "features": "Write",
        "images": "Read",
        "images.archive": "Write",
        "images.backlog": "Read Write",
        "images.dead": "Write",
        "models.promoted": "Read",
        "scanners": "Read Write",
        "verdicts": "Write",
    }
    assert {right for right in of("home-scanner") if right.kind != "topic"} == {
        Right("group", "fediwarden-scanner", "Read")
    }


def test_a_shadow_sees_what_waits_and_decides_nothing() -> None:
    assert by_topic(of("shadow")) == {
        "images": "Read",
        "images.backlog": "Read",
        "scanners": "Write",
        "verdicts.shadow": "Write",
    }
    assert {right for right in of("shadow") if right.kind != "topic"} == {
        Right("group", "fediwarden-scanner-shadow", "Read")
    }


@pytest.mark.parametrize("role", ["home-scanner", "shadow"])
def test_they_may_nothing_that_a_scanner_may_not(role) -> None:
    assert of(role) < of("scanner")


def test_every_process_of_the_table_has_a_role_and_every_role_is_in_the_table() -> None:
    named = {process for topic in TOPICS for process in (*topic.writers, *topic.readers, *topic.erasers)}
    assert named == {role.process for role in ROLES.values()}
    assert COMMANDS in named


@pytest.mark.parametrize(
    ("role", "topics"),
    [
        ("gateway", GATEWAY_TOPICS),
        ("scanner", (*SCANNER_TOPICS, *SHADOW_TOPICS, FEATURES, RESCAN_JOBS, RESCANS, MODELS_PROMOTED)),
        ("home-scanner", (*SCANNER_TOPICS, FEATURES, MODELS_PROMOTED)),
        ("shadow", SHADOW_TOPICS),
        ("enforcer", ENFORCER_TOPICS),
        ("lemmy", LEMMY_TOPICS),
        ("audit", RECORDED_TOPICS),
    ],
)
def test_a_process_may_ask_for_the_settings_of_every_topic_that_it_checks_at_its_start(role, topics) -> None:
    assert {Right("topic", topic.name, "DescribeConfigs") for topic in topics} <= of(role)


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"enforcer", "admin"}))
def test_only_the_enforcer_deletes_and_nobody_alters(role) -> None:
    assert {right.operation for right in of(role)} <= {"Read", "Write", "Describe", "DescribeConfigs"}
    assert all(right.kind in ("topic", "group") for right in of(role))


def test_pictures_are_read_by_the_audit_only_where_an_admin_allows_looking() -> None:
    reading = Right("topic", "images.archive", "Read")
    assert reading in of("audit")
    assert reading not in of("audit", Settings())


def test_names_follow_the_settings() -> None:
    settings = Settings.model_validate(
        {"kafka": {"topic_prefix": "a."}, "scanner": {"group": "gpu"}, "erasure": {"groups": ("cpu",)}}
    )
    assert Right("group", "a.gpu", "Read") in rights_of(ROLES["home-scanner"], settings)
    assert {Right("group", f"a.{name}", "Describe") for name in ("gpu", "gpu-shadow", "cpu")} <= rights_of(
        ROLES["enforcer"], settings
    )
    assert all(right.name.startswith("a.") for role in ROLES.values() for right in rights_of(role, settings))


def test_a_role_is_known_by_its_rights() -> None:
    for name, role in ROLES.items():
        rights = rights_of(role, SETTINGS)
        assert find_roles(rights, SETTINGS) == [name]
        assert find_roles(rights - {min(rights)}, SETTINGS) == []


@pytest.mark.parametrize(
    ("role", "whose"),
    [("enforcer", "the enforcer"), ("relay", "the relay"), ("lemmy", "lemmy"), ("audit", "the audit")],
)
def test_the_rights_that_the_docs_name_are_those_that_are_given(role, whose) -> None:
    settings = Settings.model_validate({"scanner": {"group": "scanners"}, "audit": {"viewing": {"enabled": True}}})
    section = TOPICS_PAGE.read_text().split(f"## What {whose} may do")[1].split("\n## ")[0]
    documented = {
        Right(kind, name.replace("...", ""), operation, bool(prefixed))
        for kind, name, prefixed, operations in DOCUMENTED.findall(section)
        for operation in operations.split(", ")
    }
    assert documented == of(role, settings)
