"""A real pict-rs keeps what fediwarden accepts and nothing else."""

import hashlib
from itertools import count
from pathlib import Path

import pytest

from schemas.messages import AnsweredBy, AnswerGiven, Decision, Verdict
from tests.kafka import find_free_ports
from tests.pictrs.pictrs import PictRs, Upload, wait_until
from tests.pictrs.uploads import BEYOND_IMAGEMAGICK_6, TAKEN, make_upload
from tests.pictrs.warden import Warden
from tests.stand_ins import accepted_picture

pytestmark = [pytest.mark.pictrs, pytest.mark.kafka, pytest.mark.timeout(240)]

seeds = count(100, 2)


def upload_and_find(warden: Warden, pictrs: PictRs, data: bytes) -> tuple[Upload, Verdict, AnswerGiven]:
    """Upload, and find the verdict and the one answer that are in the log since.

    A busy machine's gateway may take the scanner for silent and publish the image again: then both verdicts are alike.
    """
    before = {answer.scan_id for answer in warden.records()[1]}
    upload = pictrs.upload(data)
    answers: list[AnswerGiven] = []
    verdicts: list[Verdict] = []

    def answer_is_there() -> bool:
        verdicts[:], answers[:] = warden.records()
        answers[:] = [answer for answer in answers if answer.scan_id not in before]
        return bool(answers)

    # The ledger is written behind the answer's back.
    wait_until(answer_is_there, 15.0, f"the answer to be in the log; pict-rs said {upload}")
    assert len(answers) == 1
    mine = [verdict for verdict in verdicts if verdict.scan_id == answers[0].scan_id]
    assert mine, f"no verdict: {answers[0]}"
    assert len({(verdict.decision, verdict.rules, verdict.sha256) for verdict in mine}) == 1
    return upload, mine[0], answers[0]


@pytest.mark.parametrize("kind", TAKEN)
def test_an_accepted_file_is_stored_and_served_with_the_bytes_that_were_judged(
    warden: Warden, pictrs: PictRs, kind: str
) -> None:
    upload, verdict, answer = upload_and_find(warden, pictrs, make_upload(kind, rejected=False, seed=next(seeds)))

    assert upload.status == 201
    assert verdict.decision is Decision.ACCEPT
    assert (answer.status, answer.answered_by) == (200, AnsweredBy.VERDICT)
    served = pictrs.original(upload.alias)
    assert served.status_code == 200
    assert hashlib.sha256(served.content).digest() == verdict.sha256 == answer.sha256
    assert upload.alias in pictrs.aliases(verdict.sha256, answer.length, answer.media_type)
    assert served.headers["content-type"] == upload.content_type


@pytest.mark.parametrize("kind", TAKEN)
def test_a_rejected_file_is_refused_and_nothing_of_it_is_kept(warden: Warden, pictrs: PictRs, kind: str) -> None:
    files = pictrs.stored_files()
    upload, verdict, answer = upload_and_find(warden, pictrs, make_upload(kind, rejected=True, seed=next(seeds)))

    assert (upload.status, upload.code) == (400, "failed-external-validation")
    assert verdict.decision is Decision.REJECT
    assert [rule.decision for rule in verdict.rules].count(Decision.REJECT) >= 1
    assert (answer.status, answer.answered_by) == (406, AnsweredBy.VERDICT)
    assert pictrs.aliases(verdict.sha256, answer.length, answer.media_type) == []
    assert verdict.sha256.hex() not in pictrs.known_hashes()
    wait_until(lambda: pictrs.stored_files() <= files, 20.0, "pict-rs to remove the refused file from its store")


@pytest.mark.parametrize("rejected", [False, True])
@pytest.mark.parametrize("kind", BEYOND_IMAGEMAGICK_6)
def test_what_pict_rs_cannot_take_here_is_judged_when_it_is_sent_as_pict_rs_would(
    warden: Warden, kind: str, rejected: bool
) -> None:
    response = warden.post(make_upload(kind, rejected=rejected, seed=next(seeds)), BEYOND_IMAGEMAGICK_6[kind])

    assert response.status_code == (406 if rejected else 200)
    assert response.headers["x-fediwarden-answered-by"] == "verdict"


def test_the_same_upload_again_is_answered_from_memory_and_gets_an_alias_of_its_own(
    warden: Warden, pictrs: PictRs
) -> None:
    data = make_upload("png", rejected=False, seed=next(seeds))
    first, verdict, _ = upload_and_find(warden, pictrs, data)
    second = pictrs.upload(data)

    assert (first.status, second.status) == (201, 201)
    assert first.alias != second.alias

    def answered_by_memory() -> bool:
        ways = [answer.answered_by for answer in warden.records()[1] if answer.sha256 == verdict.sha256]
        return sorted(ways) == [AnsweredBy.KNOWN, AnsweredBy.VERDICT]

    wait_until(answered_by_memory, 10.0, "the answer from memory to be in the log")


def test_fediwarden_is_asked_by_its_address_and_never_by_a_name_that_leads_to_a_private_one(
    warden: Warden, tmp_path: Path
) -> None:
    """Since 0.5.21, and why docs and `fediwarden init` give addresses; the day this fails, names will do again."""
    by_name = warden.validation.replace("127.0.0.1", "localhost")
    with PictRs(tmp_path, find_free_ports(1), by_name) as pictrs:
        assert pictrs.upload(accepted_picture(8008)).status == 500
        assert "tcp connect error" in pictrs.log


def test_an_upload_without_fediwarden_fails_and_works_again_when_it_is_back(warden: Warden, pictrs: PictRs) -> None:
    files = pictrs.stored_files()
    warden.stop()
    try:
        refused = pictrs.upload(make_upload("jpeg", rejected=False, seed=next(seeds)))
    finally:
        warden.start()

    assert (refused.status, refused.code) == (500, "http-client-error")
    wait_until(lambda: pictrs.stored_files() <= files, 20.0, "pict-rs to remove what nobody judged")
    upload, verdict, _ = upload_and_find(warden, pictrs, make_upload("jpeg", rejected=False, seed=next(seeds)))
    assert upload.status == 201
    assert verdict.decision is Decision.ACCEPT
