"""Each format, read back as the other side reads it."""

import csv
import io
import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.cases import Action, Case, Decision, Judged, Presence, RuleHit
from federation_audit.exports.activitypub import flags_jsonl, lemmy_flags, mastodon_flag
from federation_audit.exports.coop import CoopTypes, report_body
from federation_audit.exports.evidence import evidence_jsonl
from federation_audit.exports.export import Export, NotExpressible
from federation_audit.exports.fediblockhole import blocklist_csv
from federation_audit.exports.fediseer import Opinion, statement, statements
from federation_audit.exports.formats import Exporter, ExportFormat, make_export
from federation_audit.exports.lemmy import block_calls, block_instance, block_list, edit_site, union
from federation_audit.exports.mastodon import domain_block, domain_blocks_csv
from schemas.domains import normalise_domain
from tests.unit.federation_audit.samples import NOW, case, incident, judged

HOSTILE = st.text(min_size=1, max_size=80) | st.sampled_from(
    [
        '=HYPERLINK("https://evil.example")',
        "@SUM(1)",
        "-1",
        '"\r\nbad2.example,suspend',
        "x" * 10_000,
        "\u202e,",
        "\ud800",
    ]
)
DOMAINS = ["xn--bcher-kva.example", "203.0.113.7", "a" * 56 + ".onion", "bad.example"]


def with_reason(reason: str, action: Action = Action.DEFEDERATE) -> Judged:
    return Judged(case(), Decision("bad.example", action, reason, reason, NOW, None))


def test_mastodons_csv_has_its_header_and_what_its_import_reads() -> None:
    made = domain_blocks_csv([judged(), judged(Action.RESTRICT_MEDIA, domain="a.example"), judged(Action.CONTACT)])
    assert made.content.decode().split("\n")[0] == (
        "#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate"
    )
    rows = list(csv.DictReader(io.StringIO(made.content.decode())))
    assert [(row["#domain"], row["#severity"], row["#reject_media"]) for row in rows] == [
        ("a.example", "noop", "true"),
        ("bad.example", "suspend", "true"),
    ]
    assert all(row["#obfuscate"] == row["#reject_reports"] == "false" for row in rows)
    assert rows[1]["#public_comment"] == (
        "abusive images: 3 confirmed incidents by 2 accounts, 2026-10-29 to 2026-11-28"
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_form_goes_through_every_blocklist(domain: str) -> None:
    made = judged(domain=domain)
    assert f"\n{domain},suspend" in domain_blocks_csv([made]).content.decode()
    assert f"\n{domain},suspend" in blocklist_csv([made]).content.decode()
    assert block_list([made]).content.decode() == f"{domain}\n"
    assert json.loads(block_calls([made]).content)["instance"] == domain


def test_a_case_is_only_of_a_domain_in_our_form() -> None:
    for spelling in ("Bad.Example", "bad.example:443", "bücher.example", "bad.example."):
        with pytest.raises(ValueError, match="not in the form"):
            case(domain=spelling)
        assert case(domain=normalise_domain(spelling)).domain == normalise_domain(spelling)


def test_what_has_no_host_name_is_left_out_and_named() -> None:
    for export in (domain_blocks_csv, blocklist_csv, block_list, block_calls):
        made = export([judged(domain="[::1]")])
        assert [each.domain for each in made.left_out] == ["[::1]"]
        assert b"::1" not in made.content


def read_by_fediblockhole(text: str) -> list[dict[str, str]]:
    """As its BlocklistParserCSV reads: split at line feeds first, booleans by name, severities of three."""
    rows = list(csv.DictReader(text.split("\n")))
    for row in rows:
        assert row["severity"] in ("noop", "silence", "suspend")
        assert all(row[name] in ("true", "false") for name in ("reject_media", "reject_reports", "obfuscate"))
    return rows


def test_fediblockholes_csv_is_read_by_its_rules() -> None:
    (row,) = read_by_fediblockhole(blocklist_csv([judged()]).content.decode())
    assert row["domain"] == "bad.example"
    assert row["private_comment"] == "nobody answers there (alice, 2026-11-28, until 2027-02-26)"


@settings(max_examples=60, deadline=None)
@given(HOSTILE)
def test_no_reason_breaks_out_of_its_cell_or_becomes_a_formula(reason: str) -> None:
    text = blocklist_csv([with_reason(reason)]).content.decode()
    (row,) = read_by_fediblockhole(text)
    assert row["domain"] == "bad.example"
    for value in row.values():
        assert value[:1] not in set("=+-@|%\t\r")
        assert len(value) <= 500
    assert text.count("\n") == 2


def test_lemmys_list_is_only_ever_added_to() -> None:
    assert union(["B.example", "a.example"], ["b.example", "c.example", "c.example"]) == (
        "B.example",
        "a.example",
        "c.example",
    )
    assert edit_site(["old.example"], [judged()]) == {"blocked_instances": ["old.example", "bad.example"]}


@settings(deadline=None)
@given(st.lists(st.text(max_size=20)), st.lists(st.text(max_size=20)))
def test_no_block_that_was_there_is_lost_by_a_union(present: list[str], added: list[str]) -> None:
    made = union(present, added)
    assert list(made[: len(present)]) == present
    assert {each.lower() for each in added} <= {each.lower() for each in made}


def test_lemmy_is_told_when_a_block_ends_in_seconds() -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    assert block_instance(judged(until=until)) == {
        "instance": "bad.example",
        "block": True,
        "reason": "abusive images: 3 confirmed incidents by 2 accounts, 2026-10-29 to 2026-11-28",
        "expires_at": 1798761600,
    }
    assert "expires_at" not in block_instance(with_reason("x"))
    assert block_instance(judged(), block=False)["block"] is False


def test_what_lemmy_cannot_do_is_said_and_not_done_otherwise() -> None:
    with pytest.raises(NotExpressible, match="images alone"):
        block_instance(judged(Action.RESTRICT_MEDIA))
    assert "images alone" in block_calls([judged(Action.RESTRICT_MEDIA)]).left_out[0].reason
    with pytest.raises(NotExpressible, match="nothing to block"):
        domain_block(judged(Action.CONTACT))
    with pytest.raises(NotExpressible, match="nothing to block"):
        domain_block(Judged(case(), None))


def test_a_decision_about_another_instance_is_refused() -> None:
    with pytest.raises(ValueError, match="the case about"):
        Judged(case(), Decision("other.example", Action.DEFEDERATE, "x", "alice", NOW, None))


def test_fediseer_hears_a_hesitation_first_and_evidence_that_fits() -> None:
    said = statement(judged(Action.CONTACT), Opinion.HESITATION)
    assert said.path == "/api/v1/hesitations/bad.example"
    assert said.body["reason"] == "abusive images"
    assert "3 confirmed incidents" in said.body["evidence"]
    with pytest.raises(NotExpressible, match="hesitation first"):
        statement(judged(Action.CONTACT), Opinion.CENSURE)
    assert statement(judged(), Opinion.CENSURE).path == "/api/v1/censures/bad.example"
    many = judged(incidents=tuple(incident(1 + each % 28, presence=Presence.GONE) for each in range(300)))
    assert 900 < len(statement(many, Opinion.CENSURE).body["evidence"]) <= 1000


def test_fediseer_is_not_shown_where_something_still_is() -> None:
    evidence = statement(judged(), Opinion.CENSURE).body["evidence"]
    assert "https://bad.example/post/1;" not in evidence + ";"
    assert "https://bad.example/post/9" in evidence


def test_fediseers_lines_name_method_path_and_body() -> None:
    made = statements([judged(), judged(Action.CONTACT, domain="a.example"), judged(Action.NONE, domain="b.example")])
    calls = [json.loads(line) for line in made.content.splitlines()]
    assert [(each["method"], each["path"]) for each in calls] == [
        ("PUT", "/api/v1/hesitations/a.example"),
        ("PUT", "/api/v1/censures/bad.example"),
    ]
    assert [each.domain for each in made.left_out] == ["b.example"]


def parsed_by_lemmy(flag: dict[str, Any]) -> tuple[str, str, str]:
    """As lemmy_apub's Report: actor, exactly one `to`, one object, a summary, an id on the actor's host."""
    assert flag["type"] == "Flag"
    (community,) = flag["to"]
    assert flag["id"].startswith("https://my.example/")
    assert isinstance(flag["object"], str)
    assert flag["summary"]
    return flag["actor"], community, flag["object"]


def test_flags_are_as_lemmy_reads_them_and_carry_no_media() -> None:
    flags = lemmy_flags(case(), "https://my.example/")
    assert [parsed_by_lemmy(each) for each in flags] == [
        ("https://my.example/", "https://my.example/c/pictures", f"https://bad.example/post/{number}")
        for number in (1, 9, 17)
    ]
    assert not any("attachment" in each or "image" in each for each in flags)
    assert len({each["id"] for each in flags}) == 3
    assert lemmy_flags(case(), "https://my.example/") == flags


def test_a_flag_for_mastodon_names_the_account_first() -> None:
    flag = mastodon_flag(judged(), "https://my.example/actor", ["https://bad.example/users/eve"])
    assert flag["object"][0] == "https://bad.example/users/eve"
    assert flag["object"][1:] == [f"https://bad.example/post/{number}" for number in (1, 9, 17)]
    assert flag["content"].startswith("abusive images")
    with pytest.raises(NotExpressible, match="give its ActivityPub id"):
        mastodon_flag(judged(), "https://my.example/actor", ["eve@bad.example"])
    with pytest.raises(NotExpressible, match="in whose name"):
        mastodon_flag(judged(), "my.example", ["https://bad.example/users/eve"])


def test_a_case_whose_communities_are_not_known_has_no_flag() -> None:
    made = flags_jsonl(
        [Judged(case(incidents=(incident(1, communities=("my.example",)),)), None)], "https://my.example/"
    )
    assert made.content == b""
    assert made.left_out[0].domain == "bad.example"


def test_the_evidence_has_every_incident_on_a_line_of_its_own() -> None:
    lines = [json.loads(line) for line in evidence_jsonl([judged()]).content.splitlines()]
    assert [(each["day"], each["confirmed"]) for each in lines] == [
        ("2026-11-01", True),
        ("2026-11-09", True),
        ("2026-11-17", True),
        ("2026-11-20", False),
    ]
    assert {each["schema"] for each in lines} == {"fediwarden.evidence/1"}


def test_coop_gets_an_incident_without_images_and_without_the_word_csam() -> None:
    body = report_body(case(), incident(1), CoopTypes("incident", "person", "p1"), reporter="alice", at=NOW)
    assert body["reporter"] == {"kind": "user", "typeId": "person", "id": "alice"}
    assert body["reportedAt"] == "2026-11-28T09:00:00.000Z"
    assert body["reportedForReason"]["policyId"] == "p1"
    assert "csam" not in body["reportedForReason"]
    assert "images" not in body["reportedItem"]["data"]
    again = report_body(case(), incident(1), CoopTypes("incident", "person"), reporter="bob", at=NOW)
    assert again["reportedItem"]["id"] == body["reportedItem"]["id"]
    assert "policyId" not in again["reportedForReason"]


def hostile_case(text: str) -> Case:
    return case(
        tenant=text,
        link=text,
        reasons=(text,),
        incidents=(
            incident(
                1,
                actor=text,
                image_host=text,
                communities=(text,),
                posts=(text,),
                rules=(RuleHit(text, text),),
                lists=(text,),
                confirmed_by=text,
                case_link=text,
            ),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(HOSTILE)
def test_json_lines_stay_lines_and_short_whatever_strangers_call_themselves(text: str) -> None:
    made = Judged(hostile_case(text), Decision("bad.example", Action.DEFEDERATE, text, text, NOW, None))
    for export in (evidence_jsonl([made]), block_calls([made]), statements([made])):
        (line,) = export.content.decode().splitlines()
        assert len(line) < 20_000
        json.loads(line)
    json.dumps(report_body(made.case, made.case.incidents[0], CoopTypes("i", "p"), reporter=text, at=NOW))


STRANGERS = {
    "formula": '=HYPERLINK("https://evil.example")',
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "formula behind a tab": "\t=1+1",
    "full-width formula": "＝1+1",
    "cells and lines": 'a","b\r\nbad2.example,suspend\u2028=1',
    "right to left": "\u202egnp.exe\u2066",
    "half a character": "\ud800x",
    "ten thousand characters": "x" * 10_000,
    "marks without end": "z" + "\u0335" * 10_000,
    "markup": "<img src=x onerror=alert(1)>",
}
SPELLINGS = {
    "Bücher.example": "xn--bcher-kva.example",
    "BAD.example:8443": "bad.example",
    "203.0.113.7:8536": "203.0.113.7",
    "A" * 56 + ".onion:80": "a" * 56 + ".onion",
    "[2001:DB8::1]:443": "[2001:db8::1]",
}
LISTS_OF_NAMES = set(ExportFormat) - {ExportFormat.FLAG, ExportFormat.EVIDENCE, ExportFormat.COOP}


def exported(form: ExportFormat, made: Judged, name: str = "alice") -> Export:
    return make_export(form, [made], Exporter("https://my.example/", CoopTypes("incident", "person"), name), at=NOW)


def strings_in(value: object) -> list[str]:
    if isinstance(value, dict):
        return [each for one in value.values() for each in strings_in(one)]
    if isinstance(value, list):
        return [each for one in value for each in strings_in(one)]
    return [value] if isinstance(value, str) else []


def records(export: Export) -> list[list[str]]:
    """What whoever takes the file reads in it: the texts of each row, or of each line of JSON."""
    text = export.content.decode()
    if export.media_type.startswith("text/csv"):
        return list(csv.reader(text.removesuffix("\n").split("\n")))[1:]
    if export.media_type == "application/jsonl":
        return [strings_in(json.loads(line)) for line in text.removesuffix("\n").split("\n")]
    return [[line] for line in text.removesuffix("\n").split("\n")]


@pytest.mark.parametrize("text", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("form", list(ExportFormat))
def test_in_every_format_strangers_break_out_of_nothing(form: ExportFormat, text: str) -> None:
    def judged_of(text: str) -> Judged:
        made = hostile_case(text)
        (one,) = made.incidents
        # Beside what they say there is something usable, so that no format has nothing to say.
        posts, communities = (*one.posts, "https://bad.example/post/1"), (*one.communities, "https://my.example/c/x")
        incidents = (replace(one, posts=posts, communities=communities),)
        decision = Decision("bad.example", Action.DEFEDERATE, text, text, NOW, None)
        return Judged(replace(made, incidents=incidents), decision)

    found, usual = (records(exported(form, judged_of(each), each)) for each in (text, "usual"))
    assert len(found) == len(usual) == 1
    assert [len(each) for each in found] == [len(each) for each in usual]
    for said in found[0]:
        assert len(said) <= 2048
        assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in said)
        assert sum(unicodedata.category(each) == "Mn" for each in said) <= 4
        if form in (ExportFormat.MASTODON, ExportFormat.FEDIBLOCKHOLE):
            assert said[:1] not in set("=+-@|%＝＋－＠")


@pytest.mark.parametrize(("spelling", "domain"), SPELLINGS.items())
@pytest.mark.parametrize("form", list(ExportFormat))
def test_in_every_format_a_domain_has_our_form_or_is_left_out_by_name(
    form: ExportFormat, spelling: str, domain: str
) -> None:
    name = normalise_domain(spelling)
    assert name == domain
    post = f"https://{name}/post/1"
    export = exported(form, judged(domain=name, incidents=(incident(1, image_host=name, posts=(post,)),)))
    if name.startswith("[") and form in LISTS_OF_NAMES:
        assert [each.domain for each in export.left_out] == [name]
        assert b"2001" not in export.content
        return
    assert export.left_out == ()
    (said,) = records(export)
    assert any(each in (name, post) or each.endswith(f"/{name}") for each in said)
    text = export.content.decode()
    assert spelling not in text and "8443" not in text and "8536" not in text and "ü" not in text
