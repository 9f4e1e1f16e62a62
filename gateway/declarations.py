"""Verdicts of this gateway's own: on what it recognises, so that enforcer, ledger and audit hear of it."""

from collections import OrderedDict

import structlog

from gateway.delivery import Delivery
from gateway.frames.frame import FrameSet
from gateway.recognition import Recognised
from schemas.clock import now_ms
from schemas.messages import Stage, Verdict

log = structlog.get_logger("gateway.declarations")

_REMEMBERED_MOST = 10_000


class Declarations:
    """Publishes what images were recognised as.

    The same is said once of the same bytes, unless `again`: pict-rs asks about a refused image at every view.
    """

    def __init__(self, *, gateway: str, delivery: Delivery) -> None:
        self._gateway = gateway
        self._delivery = delivery
        self._said: OrderedDict[tuple[str, bytes, str], None] = OrderedDict()

    async def publish(
        self,
        recognised: Recognised,
        *,
        scan_id: str,
        tenant: str,
        sha256: bytes,
        length: int,
        received_at: int,
        frames: FrameSet | None = None,
        again: bool = False,
    ) -> None:
        """Publish, or spool, one verdict; `frames` where they were made. A failure is logged, for nobody waits."""
        key = (tenant, sha256, recognised.hash_list)
        if key in self._said and not again:
            return
        self._said[key] = None
        if len(self._said) > _REMEMBERED_MOST:
            self._said.popitem(last=False)
        seen = frames.frames if frames is not None else ()
        verdict = Verdict(
            scan_id=scan_id,
            tenant=tenant,
            sha256=sha256,
            decision=recognised.decision,
            rules=(recognised.rule,),
            scores={},
            worst_frame=recognised.rule.frame,
            frame_count=max(1, len(seen)),
            pdq=tuple(frame.pdq for frame in seen),
            pdq_quality=tuple(frame.pdq_quality for frame in seen),
            media_type=frames.media_type if frames is not None else "",
            length=length,
            models={},
            policy="",
            hash_list=recognised.hash_list,
            stage=Stage.LIST,
            scanner=self._gateway,
            topic="",
            partition=0,
            offset=0,
            received_at=received_at,
            judged_at=now_ms(),
        )
        try:
            await self._delivery.declare(verdict)
        except Exception as error:  # noqa: BLE001 - the edge of a task; answer and ledger say it all the same
            self._said.pop(key, None)
            log.error("a verdict of ours is not published", scan_id=scan_id, error=repr(error))
