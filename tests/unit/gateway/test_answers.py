import json
from dataclasses import replace

import pytest

from gateway.answers import (
    Answer,
    Waiting,
    answer_reply,
    is_accepted,
    json_status,
    ledger_entry,
    pict_rs_status,
    refusal_reply,
    report_reply,
    waiting_reply,
)
from gateway.recognition import Recognised
from gateway.refusals import STATUS, Refusal, RefusalCode
from gateway.settings import TenantSettings
from gateway.verdicts import Judge, Judgement
from schemas.messages import AnsweredBy, Decision, RuleFired

JUDGEMENT = Judgement(
    decision=Decision.REJECT,
    judge=Judge((("m", "id"),), "policy"),
    rules=b'[{"name":"explicit","decision":"reject","frame":1}]',
    scores=b'{"m/nsfw":0.75}',
    judged_at=5,
    tenant="default",
    sha256=b"\x02" * 32,
)
ANSWER = Answer(
    scan_id="00ff",
    tenant="default",
    sha256=b"\x02" * 32,
    length=10,
    media_type="image/png",
    decision=Decision.REJECT,
    accepted=False,
    answered_by=AnsweredBy.VERDICT,
    reason="",
    judgement=JUDGEMENT,
    recognised=None,
    carried_by="00ff",
    answered_at=1_000,
    milliseconds=12.3456,
)


@pytest.mark.parametrize(
    ("decision", "on_review", "accepted"),
    [
        (Decision.ACCEPT, "reject", True),
        (Decision.REJECT, "accept", False),
        (Decision.REVIEW, "accept", True),
        (Decision.REVIEW, "reject", False),
    ],
)
def test_review_is_what_the_tenant_makes_of_it(decision: Decision, on_review: str, accepted: bool) -> None:
    assert is_accepted(decision, TenantSettings.model_validate({"on_review": on_review})) is accepted


def test_pict_rs_is_told_by_status_and_the_json_api_by_the_body() -> None:
    assert (pict_rs_status(ANSWER), json_status(ANSWER)) == (406, 200)
    accepted = replace(ANSWER, decision=Decision.ACCEPT, accepted=True)
    assert (pict_rs_status(accepted), json_status(accepted)) == (200, 200)
    unreadable = replace(accepted, answered_by=AnsweredBy.UNREADABLE)
    assert (pict_rs_status(unreadable), json_status(unreadable)) == (200, 422)


def test_an_answer_says_all_in_its_body_and_the_gist_in_its_headers() -> None:
    reply = answer_reply(ANSWER, 406)
    assert reply.status == 406
    assert json.loads(reply.body) == {
        "scan_id": "00ff",
        "sha256": "02" * 32,
        "decision": "reject",
        "accepted": False,
        "answered_by": "verdict",
        "reason": "",
        "media_type": "image/png",
        "rules": [{"name": "explicit", "decision": "reject", "frame": 1}],
        "scores": {"m/nsfw": 0.75},
        "hash_list": "",
        "milliseconds": 12.35,
    }
    assert dict(reply.headers) == {
        b"x-fediwarden-scan-id": b"00ff",
        b"x-fediwarden-decision": b"reject",
        b"x-fediwarden-answered-by": b"verdict",
    }


def test_a_listed_image_names_the_list_beside_what_a_policy_said() -> None:
    listed = Recognised(
        by=AnsweredBy.LIST,
        decision=Decision.REVIEW,
        reason="on the list partners@1",
        rule=RuleFired(name="list:partners", decision=Decision.REVIEW, frame=0),
        hash_list="partners@1",
    )
    body = json.loads(answer_reply(replace(ANSWER, recognised=listed), 406).body)
    assert [rule["name"] for rule in body["rules"]] == ["explicit", "list:partners"]
    assert body["hash_list"] == "partners@1"
    alone = json.loads(answer_reply(replace(ANSWER, recognised=listed, judgement=None), 406).body)
    assert alone["rules"] == [{"name": "list:partners", "decision": "review", "frame": 0}]


def test_what_is_no_image_has_the_typed_error_beside_the_answer() -> None:
    unreadable = replace(ANSWER, answered_by=AnsweredBy.UNREADABLE, judgement=None, reason="empty")
    body = json.loads(answer_reply(unreadable, 422).body)
    assert body["error"]["code"] == "not_an_image"
    assert "empty" in body["error"]["message"]
    assert (body["answered_by"], body["rules"], body["scores"]) == ("unreadable", [], {})


def test_a_report_shows_the_verdict_that_came_after_the_answer() -> None:
    late = replace(ANSWER, answered_by=AnsweredBy.DEADLINE, decision=Decision.ACCEPT, accepted=True, judgement=None)
    report = json.loads(report_reply("00ff", late, JUDGEMENT).body)
    assert report["answer"]["answered_by"] == "deadline"
    assert report["verdict"] == {
        "decision": "reject",
        "rules": [{"name": "explicit", "decision": "reject", "frame": 1}],
        "scores": {"m/nsfw": 0.75},
        "models": {"m": "id"},
        "policy": "policy",
        "judged_at": 5,
    }


def test_who_did_not_wait_is_told_where_to_ask_and_why_there_is_nothing_to_wait_for() -> None:
    waiting = Waiting("00ff", "default", b"\x02" * 32)
    reply = waiting_reply(waiting)
    assert (reply.status, json.loads(reply.body)) == (202, {"scan_id": "00ff", "sha256": "02" * 32})
    assert dict(reply.headers)[b"location"] == b"/v1/scans/00ff"
    report = json.loads(report_reply("00ff", waiting, None).body)
    assert (report["answer"], report["verdict"], report["unjudgeable"]) == (None, None, "")
    waiting.unjudgeable = "unjudgeable: no scanner can judge it"
    assert json.loads(report_reply("00ff", waiting, None).body)["unjudgeable"] == waiting.unjudgeable


def test_a_report_of_a_scan_that_another_gateway_answered_has_its_verdict_only() -> None:
    report = json.loads(report_reply("00ff", None, JUDGEMENT).body)
    assert report["answer"] is None
    assert report["sha256"] == "02" * 32


def test_the_ledgers_entry_has_the_status_that_was_sent() -> None:
    entry = ledger_entry(ANSWER, status=406, gateway="g")
    assert (entry.scan_id, entry.status, entry.answered_by, entry.length) == ("00ff", 406, AnsweredBy.VERDICT, 10)


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_refusal_is_typed_and_no_status_but_503_blames_the_server(code: RefusalCode) -> None:
    reply = refusal_reply(Refusal(code, "what", field="body", remedy="do"), body_unread=False)
    assert json.loads(reply.body) == {"error": {"code": code.value, "field": "body", "message": "what", "remedy": "do"}}
    assert reply.status == STATUS[code]
    assert reply.status < 500 or reply.status == 503
