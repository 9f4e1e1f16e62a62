"""What a real pict-rs took in unjudged, and is rejected later, does not stay there."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.messages import AnsweredBy, Decision
from tests.kafka import find_free_ports
from tests.pictrs.pictrs import API_KEY, PictRs, wait_until
from tests.pictrs.uploads import make_upload
from tests.pictrs.warden import Warden
from tests.processes import Process

pytestmark = [pytest.mark.pictrs, pytest.mark.kafka, pytest.mark.timeout(240)]

KINDS = ("jpeg", "png", "apng", "gif", "webp", "webp-animated", "mp4-h264", "webm-vp9")


@pytest.mark.usefixtures("built")
def test_what_is_let_through_by_the_deadline_and_rejected_later_is_removed_with_every_alias(tmp_path: Path) -> None:
    port = find_free_ports(1)
    settings = {
        "FEDIWARDEN_GATEWAY__DEADLINE_MS": "2000",
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": f"http://127.0.0.1:{port}",
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": API_KEY,
    }
    bad = {kind: make_upload(kind, rejected=True, seed=1000 + number) for number, kind in enumerate(KINDS)}
    with (
        Warden(tmp_path / "warden", scanners=0, settings=settings) as warden,
        PictRs(tmp_path / "pict-rs", port, warden.validation) as pictrs,
    ):
        with ThreadPoolExecutor(4) as pool:  # each waits for the deadline
            uploads = list(pool.map(pictrs.upload, [*bad.values(), *bad.values()]))
        good = pictrs.upload(make_upload("png", rejected=False, seed=2000))
        aliases = [upload.alias for upload in uploads]
        assert [pictrs.original(alias).status_code for alias in [*aliases, good.alias]] == [200] * (len(aliases) + 1)

        scanner = Process(["scanner"], environment=warden.environment, log_file=tmp_path / "scanner.log")
        try:
            wait_until(
                lambda: all(pictrs.original(alias).status_code == 404 for alias in aliases),
                120.0,
                f"all that is bad to be gone; the logs are in {tmp_path}",
            )
        finally:
            scanner.stop()
        verdicts, answers = warden.records()
        assert {answer.answered_by for answer in answers} <= {AnsweredBy.DEADLINE, AnsweredBy.OVERLOAD}
        rejected = [verdict for verdict in verdicts if verdict.decision is Decision.REJECT]
        assert {verdict.sha256 for verdict in rejected} == {
            answer.sha256 for answer in answers if answer.sha256.hex() not in pictrs.known_hashes()
        }
        assert len({verdict.sha256 for verdict in rejected}) >= len(KINDS)  # pict-rs encodes a video anew each time
        for verdict in rejected:
            assert pictrs.aliases(verdict.sha256, verdict.length, verdict.media_type) == []
        assert pictrs.original(good.alias).status_code == 200
        assert len(pictrs.known_hashes()) == 1
