"""One message of every type, the same on every run."""

from schemas.messages import (
    EVERY_TENANT,
    ActorForgotten,
    AnsweredBy,
    AnswerGiven,
    Confidence,
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    FeaturesExtracted,
    FrameInfo,
    ImageFailed,
    ImageSubmitted,
    Message,
    ModelsPromoted,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
    Place,
    Rejudged,
    RescanJudged,
    RescanOnly,
    RescanOrdered,
    RescanSpan,
    RescanState,
    RescanTier,
    RuleFired,
    ScannerAnnounced,
    SealedFrames,
    Stage,
    Timings,
    Verdict,
)

SHA256 = bytes(range(32))
PDQ = bytes(range(32, 64))
MODELS = {"safety-s": "safety-s:0123456789abcdef", "open-nsfw": "open-nsfw:fedcba9876543210"}

RESCAN = "20261128-171500-3f9a"


def image(**changes: object) -> ImageSubmitted:
    """An image of two frames that waits to be judged."""
    fields: dict[str, object] = {
        "scan_id": "01JD0000000000000000000000",
        "tenant": "default",
        "sha256": SHA256,
        "length": 123_456,
        "media_type": "image/gif",
        "received_at": 1_795_000_000_000,
        "deadline_at": 1_795_000_003_000,
        "frames": (
            FrameInfo(at_ms=0, width=512, height=384, pdq=PDQ, pdq_quality=100),
            FrameInfo(at_ms=500, width=512, height=384, pdq=PDQ, pdq_quality=47),
        ),
        "sealed": SealedFrames(key_id="k1", nonce=b"n" * 12, ciphertext=b"ciphertext"),
        "gateway": "gateway-1",
    }
    return ImageSubmitted.model_validate(fields | changes)


def verdict(**changes: object) -> Verdict:
    """A rejection with everything a verdict can carry."""
    fields: dict[str, object] = {
        "scan_id": "01JD0000000000000000000000",
        "tenant": "default",
        "sha256": SHA256,
        "decision": Decision.REJECT,
        "rules": (RuleFired(name="explicit", decision=Decision.REJECT, frame=1),),
        "scores": {
            "safety-s/nsfl": 0.01,
            "safety-s/nsfw": 0.97,
            "safety-s/sfw": 0.02,
            "open-nsfw/nsfw": 0.91,
            "open-nsfw/sfw": 0.09,
        },
        "worst_frame": 1,
        "frame_count": 8,
        "pdq": (PDQ,) * 8,
        "pdq_quality": (100, 49) * 4,
        "media_type": "image/gif",
        "length": 123_456,
        "models": MODELS,
        "policy": "default-cpu:0011223344556677",
        "hash_list": "",
        "stage": Stage.LIVE,
        "scanner": "host-4711-abcdef",
        "topic": "fediwarden.images",
        "partition": 11,
        "offset": 4_294_967_296,
        "received_at": 1_795_000_000_000,
        "judged_at": 1_795_000_000_250,
        "timings": Timings(queued=3.0, decode=4.5, wait=0.25, infer=30.0),
    }
    return Verdict.model_validate(fields | changes)


def answer(**changes: object) -> AnswerGiven:
    """The ledger's entry of a refused image."""
    fields: dict[str, object] = {
        "scan_id": "01JD0000000000000000000000",
        "tenant": "default",
        "sha256": SHA256,
        "status": 406,
        "decision": Decision.REJECT,
        "answered_by": AnsweredBy.VERDICT,
        "reason": "",
        "length": 123_456,
        "media_type": "image/gif",
        "answered_at": 1_795_000_000_260,
        "milliseconds": 260.5,
        "gateway": "gateway-1",
        "accepted": False,
        "carried_by": "01JD0000000000000000000000",
    }
    return AnswerGiven.model_validate(fields | changes)


def announced(**changes: object) -> ScannerAnnounced:
    """A scanner that waits for its turn to load other models."""
    fields: dict[str, object] = {
        "scanner": "host-4711-abcdef",
        "group": "fediwarden-scanner",
        "models": MODELS,
        "policies": {EVERY_TENANT: "default-cpu:0011223344556677"},
        "device": "cpu",
        "rate": 21.5,
        "announced_at": 1_795_000_000_000,
        "changing": True,
        "instance": "host-0a1b2c3d-scanner-1",
    }
    return ScannerAnnounced.model_validate(fields | changes)


SAMPLES: dict[str, Message] = {
    "image-submitted-1": image(),
    "image-submitted-1.1": image(hung=1),
    "verdict-1": verdict(length=0, pdq_quality=()),
    "verdict-1.1": verdict(pdq_quality=()),
    "verdict-1.2": verdict(),
    "verdict-1.3": verdict(stage=Stage.RESCAN, rescan=RESCAN, topic="fediwarden.verdicts", partition=5),
    "answer-given-1": answer(accepted=None, carried_by=""),
    "answer-given-1.1": answer(),
    "scanner-announced-1": announced(changing=False, instance=""),
    "scanner-announced-1.1": announced(),
    "image-failed-1": ImageFailed(
        scan_id="01JD0000000000000000000000",
        tenant="default",
        sha256=SHA256,
        reason="frames-undecryptable",
        detail="key 'k0' is not in the key file",
        topic="fediwarden.images",
        partition=3,
        offset=17,
        scanner="host-4711-abcdef",
        failed_at=1_795_000_000_000,
    ),
    "enforcement-reported-1": EnforcementReported(
        scan_id="01JD0000000000000000000000",
        tenant="default",
        sha256=SHA256,
        outcome=EnforcementOutcome.REMOVED,
        check=1,
        attempt=2,
        final=False,
        aliases=("5f0c9f6e-0b9a-4b0e-9d3b-7c8b1a2d3e4f.gif",),
        detail="",
        judged_at=1_795_000_000_250,
        enforced_at=1_795_000_005_300,
        enforcer="host-4712-abcdef",
    ),
    "override-set-1": OverrideSet(
        effect=OverrideEffect.ALLOW,
        kind=OverrideKind.PDQ,
        hash=PDQ,
        distance=31,
        tenant=EVERY_TENANT,
        set_by="alice",
        reason="a painting",
        set_at=1_795_000_000_000,
        until=1_797_592_000_000,
        scan_id="01JD0000000000000000000000",
    ),
    "features-extracted-1": FeaturesExtracted(
        scan_id="01JD0000000000000000000000",
        tenant="default",
        sha256=SHA256,
        model="clip",
        model_id="0123456789abcdef",
        dimensions=4,
        vectors=(bytes.fromhex("003c000000000000"), bytes.fromhex("0038003800380038")),
        scanner="host-4711-abcdef",
        extracted_at=1_795_000_000_240,
    ),
    "origin-observed-1": OriginObserved(
        tenant="default",
        sha256=SHA256,
        alias="5f0c9f6e-0b9a-4b0e-9d3b-7c8b1a2d3e4f.webp",
        url="https://images.example/a.webp",
        place=Place.POST_LINK,
        method=OriginMethod.DATABASE,
        host=OriginHost(domain="images.example", confidence=Confidence.CERTAIN),
        author=OriginAuthor(
            instance="xn--bcher-kva.example",
            pseudonym=bytes(range(16)),
            key_id="2026Q4",
            confidence=Confidence.CERTAIN,
        ),
        community=OriginCommunity(
            instance="town.example", actor_id="https://town.example/c/pictures", confidence=Confidence.LIKELY
        ),
        moment=OriginMoment(at=1_795_000_000_000, confidence=Confidence.POSSIBLE),
        post_url="https://xn--bcher-kva.example/post/17",
        observed_at=1_795_000_005_000,
        observer="host-4713-abcdef",
    ),
    "actor-forgotten-1": ActorForgotten(pseudonym=bytes(range(16)), key_id="2026Q4", forgotten_at=1_795_000_009_000),
    "rescan-ordered-1": RescanOrdered(
        rescan=RESCAN,
        tier=RescanTier.SCORES,
        why="policy: default-cpu:0011223344556677 to strict:8899aabbccddeeff",
        state=RescanState.FINISHED,
        tenants=("default",),
        only=(RescanOnly.ACCEPTED, RescanOnly.REVIEW),
        since=1_794_400_000_000,
        until=1_795_000_000_000,
        spans=(RescanSpan(topic="verdicts", partition=5, begin=17, end=4_294_967_296),),
        policies={EVERY_TENANT: "# all is well\n"},
        models=MODELS,
        lists={"known": "2026-11-28"},
        dry_run=True,
        most_removals=25,
        ordered_by="ada",
        ordered_at=1_795_000_000_000,
        changed_by="host-4714-abcdef",
        changed_at=1_795_000_060_000,
        note="everything in its spans is judged",
    ),
    "rescan-judged-1": RescanJudged(
        rescan=RESCAN,
        topic="verdicts",
        partition=5,
        begin=17,
        end=20,
        models=MODELS,
        images=(
            Rejudged(
                offset=17,
                scan_id="01JD0000000000000000000000",
                tenant="default",
                sha256=SHA256,
                before=Decision.ACCEPT,
                after=Decision.REJECT,
                rules=(RuleFired(name="explicit", decision=Decision.REJECT, frame=1),),
                scores={"clip/fire": 0.31},
                worst_frame=1,
                policy="strict:8899aabbccddeeff",
                hash_list="known@2026-11-28",
            ),
            Rejudged(
                offset=18,
                scan_id="01JD0000000000000000000001",
                tenant="default",
                sha256=SHA256,
                before=Decision.REJECT,
                held="override",
            ),
        ),
        judged_at=1_795_000_030_000,
        worker="host-4714-abcdef",
    ),
    "models-promoted-1": ModelsPromoted(
        group="fediwarden-scanner",
        models=("safety-s", "siglip2-base"),
        replaced=("safety-s", "open-nsfw"),
        promoted_by="ada",
        promoted_at=1_795_000_000_000,
        note="three weeks as a shadow",
    ),
}
