"""What `fediwarden doctor` says of promoted models: whether they are those of the settings, and who judges by them."""

import json
import time

from fediwarden.findings import Finding, Health
from fediwarden.promotion.rollout import CLIENT_ID, Rollout
from fediwarden.settings import Settings
from scanner.models.model import ModelError
from scanner.policy import PolicyError
from scanner.promotion.fitting import check_models, check_policies
from scanner.promotion.promoted import read_promoted
from schemas.broker import BrokerSettings, Received, read_history
from schemas.clock import now_ms
from schemas.messages import ScannerAnnounced
from schemas.topics import SCANNERS

_PAST_MS = 60_000
_SUBJECT = "promotion"


async def examine_promotion(settings: Settings) -> list[Finding]:
    """Look at what is promoted for the group of the settings; nothing where nothing is.

    Raises a `schemas.broker.BrokerError`.
    """
    broker, scanner = settings.kafka.broker_settings(), settings.scanner
    standing = (await read_promoted(broker, client_id=CLIENT_ID)).of(scanner.group)
    if standing is None:
        return []
    promoted, chosen = ", ".join(standing.models), ", ".join(scanner.models)
    findings = []
    if set(standing.models) == set(scanner.models):
        findings.append(Finding(_SUBJECT, Health.OK, f"{promoted}, as scanner.models says"))
    else:
        detail = f"scanners judge with {promoted}, which is promoted; scanner.models says {chosen}"
        remedy = f"set scanner.models = {json.dumps(standing.models)}, or go back: fediwarden models unpromote"
        findings.append(Finding(_SUBJECT, Health.WARN, detail, remedy))
        try:
            check_models(scanner, standing.models)
            check_policies(scanner, standing.models)
        except (ModelError, PolicyError) as error:
            detail = f"a scanner that starts here judges with {chosen}: {error}"
            findings.append(Finding(_SUBJECT, Health.WARN, detail, "mend that, or promote other models"))
    if behind := await _find_behind(broker, scanner.group, standing.models):
        remedy = "they take turns; if this stays, their logs say why (promotion_waits, promotion_refused)"
        findings.append(Finding(_SUBJECT, Health.WARN, "; ".join(behind), remedy))
    return findings


async def _find_behind(broker: BrokerSettings, group: str, models: tuple[str, ...]) -> list[str]:
    """The scanners that do not judge with what is promoted, and what they do."""
    rollout = Rollout(group, models)

    def observe(received: Received) -> None:
        if isinstance(announced := received.message, ScannerAnnounced):
            age_s = max(0.0, (now_ms() - announced.announced_at) / 1000)
            rollout.observe(announced, time.monotonic() - age_s)

    await read_history(broker, (SCANNERS,), since_ms=now_ms() - _PAST_MS, on_record=observe, client_id=CLIENT_ID)
    return rollout.missing(time.monotonic())
