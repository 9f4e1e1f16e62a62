"""Images as the scanner archives them: frames made by the gateway's own code, and sealed."""

import hashlib

from gateway.frames.extract import extract
from gateway.frames.settings import FrameSettings
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import Decision, FrameInfo, ImageSubmitted, RuleFired, Stage, Verdict


def submitted(data: bytes, keyring: Keyring, *, scan_id: str, tenant: str = "default") -> ImageSubmitted:
    """What the gateway publishes for the file `data`."""
    found = extract(data, FrameSettings())
    sha256 = hashlib.sha256(data).digest()
    now = now_ms()
    return ImageSubmitted(
        scan_id=scan_id,
        tenant=tenant,
        sha256=sha256,
        length=len(data),
        media_type=found.media_type,
        received_at=now,
        deadline_at=now + 60_000,
        frames=tuple(
            FrameInfo(
                at_ms=each.at_ms, width=each.width, height=each.height, pdq=each.pdq, pdq_quality=each.pdq_quality
            )
            for each in found.frames
        ),
        sealed=keyring.seal([each.jpeg for each in found.frames], sha256=sha256, tenant=tenant),
        gateway="test",
    )


def verdict_on(image: ImageSubmitted, decision: Decision, *, at: int | None = None, frame: int = 0) -> Verdict:
    """What a scanner publishes beside the frames."""
    rules = () if decision is Decision.ACCEPT else (RuleFired(name="explicit", decision=decision, frame=frame),)
    return Verdict(
        scan_id=image.scan_id,
        tenant=image.tenant,
        sha256=image.sha256,
        decision=decision,
        rules=rules,
        scores={"m/nsfw": 0.5},
        worst_frame=frame,
        frame_count=len(image.frames),
        models={"m": "m:1"},
        policy="p1",
        stage=Stage.LIVE,
        scanner="scanner-1",
        topic="images",
        partition=0,
        offset=0,
        received_at=image.received_at,
        judged_at=now_ms() if at is None else at,
    )
