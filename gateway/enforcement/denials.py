"""A denial reaches what is stored already: for each image that it hits, a verdict that says so.

The verdict is what enforcer, ledger and archive go by, so that nothing else has to know how an image came to be denied.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from gateway.enforcement.pace import pause_after
from gateway.overrides.memory import NO_LOOKS, Looks, Overrides, looks_in
from schemas.broker import BrokerError, BrokerSettings, Consumer, Producer, Received, read_history
from schemas.clock import now_ms
from schemas.messages import AnswerGiven, Decision, OverrideEffect, OverrideSet, RuleFired, Stage, Verdict
from schemas.topics import ANSWERS, OVERRIDES, VERDICTS

log = structlog.get_logger("gateway.enforcement")

RULE = "override"
_POLL_TIMEOUT_S = 1.0
_POLL_MOST = 500
_EVERY_GATEWAY_KNOWS_MS = 2_000
_RETRY_MOST_S = 30.0


@dataclass(slots=True)
class _Image:
    """Bytes that are denied, and the scans that brought them to each tenant."""

    sha256: bytes
    length: int = 0
    media_type: str = ""
    pdq: tuple[bytes, ...] = ()
    pdq_quality: tuple[int, ...] = ()
    looks: Looks = NO_LOOKS
    scans: dict[str, tuple[str, int]] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)


class Denials:
    """Carries each denial in the topic overrides to the images that were judged before it was set.

    `verdicts` and `answers` are searched from their beginnings, and what the denial hits gets a `Verdict` of stage
    override. A denial's record is done only then; one that is read again finds the verdicts that are there.
    """

    def __init__(
        self, broker: BrokerSettings, producer: Producer, *, consumer: Consumer, overrides: Overrides, name: str
    ) -> None:
        self._broker = broker
        self._producer = producer
        self._consumer = consumer
        self._overrides = overrides
        self._name = name

    async def run(self) -> None:
        """Carry out denials until cancelled. Raises a `BrokerError` when the group cannot be read any more."""
        while True:
            received = await self._consumer.poll(max_messages=_POLL_MOST, timeout_s=_POLL_TIMEOUT_S)
            denials = [each for each in received if _is_denial(each)]
            if denials:
                # A gateway that does not know of it yet may answer by an older verdict: that answer is to be found.
                age_ms = now_ms() - max(each.timestamp_ms for each in denials)
                await asyncio.sleep(max(0, _EVERY_GATEWAY_KNOWS_MS - max(0, age_ms)) / 1000)
                await self._carry_out(denials)
            for each in received:
                self._consumer.done(each)

    async def _carry_out(self, denials: Sequence[Received]) -> None:
        failures = 0
        while True:
            try:
                await self._overrides.reached(max(each.offset for each in denials), _RETRY_MOST_S)
                images = await self._find(denials)
                count = 0
                for verdict in self._verdicts_on(images):
                    await self._producer.publish(VERDICTS, verdict, key=verdict.sha256)
                    count += 1
                log.info("denials_carried_out", denials=len(denials), images=count)
                return
            except BrokerError as error:
                failures += 1
                log.warning("denials_not_carried_out", error=str(error), then="trying again")
                await asyncio.sleep(pause_after(failures, _RETRY_MOST_S))

    async def _find(self, denials: Sequence[Received]) -> dict[bytes, _Image]:
        """The images that were scanned and that one of `denials` hits, by their sha256."""
        alone = Overrides()
        for each in denials:
            alone.observe(each)
        tenants = {each.tenant for each in alone.standing()}
        images: dict[bytes, _Image] = {}

        def image_of(sha256: bytes, looks: Looks) -> _Image | None:
            if sha256 not in images:
                if all(alone.of_image(tenant, sha256, looks) is None for tenant in tenants):
                    return None
                images[sha256] = _Image(sha256)
            return images[sha256]

        def take_verdict(received: Received) -> None:
            verdict = received.message
            if not isinstance(verdict, Verdict):
                return
            image = image_of(verdict.sha256, looks_in(verdict))
            if image is None:
                return
            if verdict.stage is Stage.OVERRIDE:
                image.told.add((verdict.tenant, verdict.policy))
            if verdict.length:
                image.length, image.media_type = verdict.length, verdict.media_type
            if verdict.pdq_quality:
                image.pdq, image.pdq_quality, image.looks = verdict.pdq, verdict.pdq_quality, looks_in(verdict)
            image.scans.setdefault(verdict.tenant, (verdict.scan_id, verdict.received_at))

        def take_answer(received: Received) -> None:
            answer = received.message
            if not isinstance(answer, AnswerGiven) or answer.accepted is False:
                return
            image = image_of(answer.sha256, NO_LOOKS)
            if image is not None:
                image.length = image.length or answer.length
                image.scans.setdefault(answer.tenant, (answer.scan_id, answer.answered_at))

        read = partial(read_history, self._broker, since_ms=0, client_id=f"fediwarden-denials-{self._name}")
        await read((VERDICTS,), on_record=take_verdict)
        await read((ANSWERS,), on_record=take_answer)
        return images

    def _verdicts_on(self, images: dict[bytes, _Image]) -> Iterator[Verdict]:
        """What is to be told: of each image and tenant, where it is denied as things stand and that is not told yet."""
        for image in images.values():
            for tenant, (scan_id, received_at) in image.scans.items():
                override = self._overrides.of_image(tenant, image.sha256, image.looks)
                if override is None or override.effect is not OverrideEffect.DENY:
                    continue
                policy = f"override:{override.override_id}:{override.set_at}"
                if (tenant, policy) in image.told:
                    continue
                yield Verdict(
                    scan_id=scan_id,
                    tenant=tenant,
                    sha256=image.sha256,
                    decision=Decision.REJECT,
                    rules=(RuleFired(name=RULE, decision=Decision.REJECT, frame=0),),
                    scores={},
                    frame_count=max(1, len(image.pdq)),
                    pdq=image.pdq,
                    pdq_quality=image.pdq_quality,
                    media_type=image.media_type,
                    length=image.length,
                    models={},
                    policy=policy,
                    stage=Stage.OVERRIDE,
                    scanner=self._name,
                    topic=OVERRIDES.name,
                    partition=0,
                    offset=0,
                    received_at=received_at,
                    judged_at=now_ms(),
                )


def _is_denial(received: Received) -> bool:
    override = received.message
    return isinstance(override, OverrideSet) and override.effect is OverrideEffect.DENY and override.holds(now_ms())
