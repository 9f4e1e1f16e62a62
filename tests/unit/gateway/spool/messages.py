"""Messages for the spool's tests."""

from schemas.messages import AnsweredBy, AnswerGiven, Decision, FrameInfo, ImageSubmitted, SealedFrames


def make_image(number: int, size: int = 100) -> ImageSubmitted:
    return ImageSubmitted(
        scan_id=f"scan-{number}",
        tenant="default",
        sha256=number.to_bytes(32, "big"),
        length=1,
        media_type="image/png",
        received_at=1,
        deadline_at=2,
        frames=(FrameInfo(at_ms=0, width=1, height=1, pdq=bytes(32), pdq_quality=100),),
        sealed=SealedFrames(key_id="k", nonce=bytes(12), ciphertext=bytes(size)),
    )


def make_answer(number: int) -> AnswerGiven:
    return AnswerGiven(
        scan_id=f"scan-{number}",
        tenant="default",
        sha256=number.to_bytes(32, "big"),
        status=200,
        decision=Decision.ACCEPT,
        answered_by=AnsweredBy.SPOOLED,
        answered_at=1,
        milliseconds=1.0,
    )
