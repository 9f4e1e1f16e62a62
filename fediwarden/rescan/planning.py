"""From what is asked to a rescan: which tier gives the true answer at the least cost, and what it reads.

Scores are enough for a policy that asks for scores which verdicts keep. A concept's score is kept under its name
alone, so that one whose texts have changed, or that is new, is judged from vectors; a score of a model that has not
seen the images takes frames, as a new model does. Known-hash lists are matched with the hashes that verdicts keep.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fediwarden.rescan.errors import RescanInvalid
from fediwarden.rescan.eyes import Eyes, read_eyes
from fediwarden.rescan.jobs import CLIENT_ID, new_rescan_id
from fediwarden.settings import Settings
from gateway.lists.store import ListStore
from scanner.models.loading import every_embedder, every_label
from scanner.policy import Policy, load_policy, parse_policy, read_policy
from schemas.broker import AssignedReader, BrokerSettings, Partition, Window, check_topics, find_windows
from schemas.clock import now_ms
from schemas.messages import (
    EVERY_TENANT,
    RescanOnly,
    RescanOrdered,
    RescanSpan,
    RescanTier,
    Stage,
    Verdict,
)
from schemas.topics import FEATURES, IMAGES_ARCHIVE, SCANNERS, VERDICTS, TopicSpec

_SWEEP = "`fediwarden sweep --again` judges them there (docs/sweep.md)"

_SAMPLED_EACH = 50
_SAMPLED_MOST = 2_000
_SAMPLE_POLL_S = 1.0
_SAMPLE_STALLED_S = 20.0
_SCORED = (Stage.LIVE, Stage.BACKLOG, Stage.RESCAN)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants judged again, and by what: one of `policy`, `model` and `lists`, or none of them.

    With none, images are judged by the policies of the settings. A `policy` is a file or a shipped one's name; it
    judges `tenants`, () for all. Times are in milliseconds since the epoch; `until_ms` is None for now.
    """

    since_ms: int
    until_ms: int | None = None
    tenants: tuple[str, ...] = ()
    policy: Path | None = None
    model: str = ""
    lists: bool = False
    only: tuple[RescanOnly, ...] = ()
    dry_run: bool = False
    most_removals: int | None = None
    ordered_by: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """What of the span asked for is not kept any more: `share` of its time, up to `until_ms`, where the rest begins.

    `images` is how many verdicts there were in that time, None where those are gone too.
    """

    share: float
    until_ms: int
    images: int | None
    remedy: str

    def __str__(self) -> str:
        many = "" if self.images is None else f" ({self.images} verdicts)"
        kept = f"kept is what came after {_utc(self.until_ms)}"
        return f"{self.share:.0%} of the span asked for is gone{many}: {kept}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A rescan that may be ordered, and what of the span it cannot reach."""

    job: RescanOrdered
    gone: Gone | None

    @property
    def records(self) -> int:
        """How many records it reads."""
        return sum(span.end - span.begin for span in self.job.spans)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the latest verdicts of a span keep: the names of their scores, and the models that gave them.

    `policies` are those that the scanners judged by, by tenant: not those of rescans carried out.
    """

    scores: frozenset[str]
    models: Mapping[str, str]
    policies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class By:
    """What to judge by: the parts of a `RescanOrdered` that say it."""

    tier: RescanTier
    why: str
    policies: dict[str, str]
    models: dict[str, str]
    lists: dict[str, str]


async def plan(settings: Settings, asked: Asked) -> Plan:
    """Work out how to do what is asked. Raises `RescanInvalid`, `scanner.policy.PolicyError` or a `BrokerError`."""
    at_ms = now_ms()
    until_ms = at_ms if asked.until_ms is None else min(asked.until_ms, at_ms)
    check_asked(settings, asked, until_ms)
    broker = settings.kafka.broker_settings()
    await check_topics(broker, (VERDICTS, IMAGES_ARCHIVE, FEATURES, SCANNERS))
    windows = await _find(broker, VERDICTS, asked.since_ms, until_ms)
    by = await _choose(settings, broker, asked, windows)
    source = IMAGES_ARCHIVE if by.tier is RescanTier.FRAMES else VERDICTS
    of_source = windows if source is VERDICTS else await _find(broker, source, asked.since_ms, until_ms)
    spans = make_spans(of_source)
    if not spans:
        raise RescanInvalid(
            "--since",
            f"{source.name} has nothing from {_utc(asked.since_ms)} to {_utc(until_ms)}{_oldest(of_source)}",
            remedy="ask for a span in which images were judged",
        )
    gone = find_gone(of_source, windows, asked.since_ms, until_ms)
    if gone is not None and gone.images:
        before = await _find(broker, VERDICTS, asked.since_ms, gone.until_ms)
        gone = Gone(gone.share, gone.until_ms, sum(each.end - each.begin for each in before.values()), gone.remedy)
    job = RescanOrdered(
        rescan=new_rescan_id(at_ms),
        tier=by.tier,
        why=by.why[:500],
        tenants=asked.tenants,
        only=asked.only,
        since=asked.since_ms,
        until=until_ms,
        spans=spans,
        policies=by.policies,
        models=by.models,
        lists=by.lists,
        dry_run=asked.dry_run,
        most_removals=asked.most_removals,
        ordered_by=asked.ordered_by[:100],
        ordered_at=at_ms,
        changed_by=asked.ordered_by[:100],
        changed_at=at_ms,
    )
    return Plan(job, gone)


def check_asked(settings: Settings, asked: Asked, until_ms: int) -> None:
    """Raise `RescanInvalid` for what can be seen to be wrong without looking at any topic."""
    if asked.since_ms >= until_ms:
        raise RescanInvalid(
            "--since",
            f"the span from {_utc(asked.since_ms)} to {_utc(until_ms)} is empty",
            remedy="begin before its end",
        )
    given = [
        name
        for name, is_given in (("--policy", asked.policy), ("--model", asked.model), ("--lists", asked.lists))
        if is_given
    ]
    if len(given) > 1:
        raise RescanInvalid(
            given[1],
            f"goes not with {given[0]}: what changes by which of the two could not be told apart",
            remedy="make a rescan for each",
        )
    if RescanOnly.UNJUDGED in asked.only:
        raise RescanInvalid(
            "--only",
            "images without a verdict wait in images.backlog, where a scanner judges them without being asked, or lie "
            "in images.dead, where none could",
            remedy="start a scanner, or ask for accepted, review or rejected",
        )
    if "tenants" in settings.model_fields_set:
        for tenant in asked.tenants:
            if tenant not in settings.tenants:
                known = ", ".join(sorted(settings.tenants))
                raise RescanInvalid("--tenant", f"there is no tenant {tenant!r}", remedy=f"the tenants are: {known}")


async def _choose(settings: Settings, broker: BrokerSettings, asked: Asked, windows: Mapping[Partition, Window]) -> By:
    if asked.lists:
        lists = find_lists(settings)
        why = f"the hashes that verdicts keep are matched with {', '.join(f'{n}@{v}' for n, v in lists.items())}"
        return By(RescanTier.HASHES, why, {}, {}, lists)
    if asked.model:
        why = f"{asked.model} has to see the frames: no score of a model says what another would give"
        texts = policies_of_settings(settings, asked.tenants)
        return by_frames(settings, texts, {asked.model}, await read_eyes(broker), "--model", why)
    if asked.policy is not None:
        text, source = read_policy(asked.policy)
        parse_policy(text, every_label(), source=source, embedders=every_embedder(settings.scanner.registry))
        texts = dict.fromkeys(asked.tenants or (EVERY_TENANT,), text)
    else:
        texts = policies_of_settings(settings, asked.tenants)
    kept = await sample_verdicts(broker, windows)
    return choose_tier(settings, texts, kept, await read_eyes(broker))


def policies_of_settings(settings: Settings, tenants: Sequence[str] = ()) -> dict[str, str]:
    """The texts of the policies in force, by tenant. Raises `scanner.policy.PolicyError`."""
    scanner = settings.scanner
    own = {tenant: path for tenant, path in scanner.policies.items() if not tenants or tenant in tenants}
    texts = {tenant: read_policy(path)[0] for tenant, path in own.items()}
    if not tenants or set(tenants) - own.keys():
        texts[EVERY_TENANT] = read_policy(scanner.policy)[0]
    return texts


def choose_tier(settings: Settings, texts: Mapping[str, str], kept: Kept, eyes: Eyes) -> By:
    """The cheapest tier that gives the true answer for policies (their texts, by tenant), from what is kept.

    `eyes` are the scanners that could see frames. Raises `RescanInvalid` or `scanner.policy.PolicyError`.
    """
    policies = _parse(settings, texts)
    missing = sorted({score for policy in policies.values() for score in policy.scores} - kept.scores)
    of_concepts = {name for policy in policies.values() for name in policy.concepts}
    if unseen := [score for score in missing if score.partition("/")[0] not in kept.models]:
        model = unseen[0].partition("/")[0]
        why = f"verdicts keep no {unseen[0]}: {model} has not seen the images, and has to see their frames"
        return by_frames(settings, texts, {score.partition("/")[0] for score in unseen}, eyes, "--policy", why)
    if unscored := [score for score in missing if score.partition("/")[0] not in of_concepts]:
        raise RescanInvalid(
            "--policy",
            f"asks for {unscored[0]}, which the model that judged does not give",
            remedy="does the policy fit the models? `fediwarden policy check` tells",
        )
    changed = sorted(
        f"{model}/{concept}"
        for tenant, policy in policies.items()
        for model, concept in _changed_concepts(policy, _in_force(settings, tenant))
    )
    if missing or changed:
        named = (missing or changed)[0]
        because = "verdicts keep no score of" if missing else "the texts have changed of"
        why = f"{because} the concept {named}: its score comes from the vectors in features"
        models = {name: kept.models[name] for name in of_concepts if name in kept.models}
        return By(RescanTier.VECTORS, why, dict(texts), models, {})
    why = "verdicts keep every score that the policy asks for"
    if of_concepts:
        why += "; those of concepts are taken as they are, as their texts are those of the policy in force"
    return By(RescanTier.SCORES, why, dict(texts), {}, {})


def by_frames(
    settings: Settings, texts: Mapping[str, str], names: Collection[str], eyes: Eyes, field: str, why: str
) -> By:
    """Have scanners that run the models `names` see the frames, and judge by policies. Raises as `choose_tier`."""
    models = eyes.models_for(names, registry=settings.scanner.registry, field=field)
    for tenant, policy in _parse(settings, texts).items():
        if lacking := sorted(set(policy.models) - models.keys()):
            raise RescanInvalid(
                field,
                f"the policy {policy.name!r} (tenant {tenant}) asks for {', '.join(lacking)} as well, and the scanners "
                f"that could see the frames run {', '.join(models)} alone",
                remedy=f"add {', '.join(lacking)} to scanner.models, or judge by a policy that does not need it",
            )
    return By(RescanTier.FRAMES, why, dict(texts), models, {})


def policy_ids(settings: Settings, texts: Mapping[str, str]) -> dict[str, str]:
    """The ids of policies, by tenant, from their texts. Raises `scanner.policy.PolicyError`."""
    return {tenant: policy.id for tenant, policy in _parse(settings, texts).items()}


def _parse(settings: Settings, texts: Mapping[str, str]) -> dict[str, Policy]:
    labels, embedders = every_label(), every_embedder(settings.scanner.registry)
    return {
        tenant: parse_policy(text, labels, source=f"policy of {tenant}", embedders=embedders)
        for tenant, text in texts.items()
    }


def _in_force(settings: Settings, tenant: str) -> Policy:
    scanner = settings.scanner
    given = scanner.policies.get(tenant, scanner.policy)
    return load_policy(given, every_label(), every_embedder(scanner.registry))


def _changed_concepts(policy: Policy, before: Policy) -> list[tuple[str, str]]:
    return [
        (model, concept)
        for model, concepts in policy.concepts.items()
        for concept, texts in concepts.items()
        if before.concepts.get(model, {}).get(concept, texts) != texts
    ]


def find_lists(settings: Settings) -> dict[str, str]:
    """The lists that gateways match now: name and version. Raises `RescanInvalid` where there is none."""
    folder = settings.gateway.lists.folder
    assert folder is not None, "filled in by the settings"
    store = ListStore(folder)
    suspended, at_ms = store.suspended(), now_ms()
    stored = [store.load(name) for name in store.names() if name not in suspended]
    lists = {each.name: each.version for each in stored if not each.definition.has_expired(at_ms)}
    if not lists:
        raise RescanInvalid(
            "--lists", f"no list in {folder} is in force", remedy="`fediwarden lists` shows what there is and why"
        )
    return lists


async def _find(broker: BrokerSettings, topic: TopicSpec, since_ms: int, until_ms: int) -> dict[Partition, Window]:
    return await find_windows(broker, topic, since_ms=since_ms, until_ms=until_ms, client_id=CLIENT_ID)


async def sample_verdicts(broker: BrokerSettings, windows: Mapping[Partition, Window]) -> Kept:
    """What the latest verdicts of each partition keep, as far as somebody scored them.

    Raises a `schemas.broker.BrokerError`.
    """
    starts = {at: max(each.begin, each.end - _SAMPLED_EACH) for at, each in windows.items()}
    left = sum(each.end - starts[at] for at, each in windows.items())
    scores: set[str] = set()
    models: dict[str, tuple[int, str]] = {}
    policies: dict[str, tuple[int, str]] = {}
    loop = asyncio.get_running_loop()
    moved_at = loop.time()
    async with AssignedReader(broker, (VERDICTS,), starts=starts, client_id=CLIENT_ID) as reader:
        while left > 0 and loop.time() - moved_at < _SAMPLE_STALLED_S:
            records = await reader.poll(timeout_s=_SAMPLE_POLL_S, most=_SAMPLED_MOST)
            for received in records:
                at, verdict = Partition(received.topic, received.partition), received.message
                if at not in windows or received.offset >= windows[at].end:
                    continue
                left -= 1
                moved_at = loop.time()
                if isinstance(verdict, Verdict) and verdict.stage in _SCORED:
                    scores |= verdict.scores.keys()
                    for name, model_id in verdict.models.items():
                        models[name] = max(models.get(name, (0, "")), (verdict.judged_at, model_id))
                    if verdict.stage is not Stage.RESCAN:
                        by = policies.get(verdict.tenant, (0, ""))
                        policies[verdict.tenant] = max(by, (verdict.judged_at, verdict.policy))
    return Kept(
        frozenset(scores),
        {name: model_id for name, (_, model_id) in models.items()},
        {tenant: policy for tenant, (_, policy) in policies.items()},
    )


def make_spans(windows: Mapping[Partition, Window]) -> tuple[RescanSpan, ...]:
    """What is read; partitions with nothing to read are left out."""
    return tuple(
        RescanSpan(topic=at.topic.name, partition=at.number, begin=each.begin, end=each.end)
        for at, each in windows.items()
        if each.begin < each.end
    )


def find_gone(
    source: Mapping[Partition, Window], verdicts: Mapping[Partition, Window], since_ms: int, until_ms: int
) -> Gone | None:
    """What of the span is not there any more in `source`; None where all is.

    `images` is set (to 0) where verdicts reach further back than the source, so that they can be counted.
    """
    cut = [each.oldest_ms for each in source.values() if each.log_begin > 0 and each.oldest_ms is not None]
    if not cut or max(cut) <= since_ms:
        return None
    oldest_ms = min(max(cut), until_ms)
    share = (oldest_ms - since_ms) / (until_ms - since_ms)
    known = [each.oldest_ms for each in verdicts.values() if each.oldest_ms is not None]
    countable = source is not verdicts and bool(known) and min(known) < oldest_ms
    if any(at.topic is IMAGES_ARCHIVE for at in source):
        remedy = f"the pictures of that time are where your server stores them: {_SWEEP}"
    else:
        remedy = f"its scores and hashes are gone, the pictures are where your server stores them: {_SWEEP}"
    return Gone(share, oldest_ms, 0 if countable else None, remedy)


def _oldest(windows: Mapping[Partition, Window]) -> str:
    known = [each.oldest_ms for each in windows.values() if each.oldest_ms is not None]
    return f" (the oldest that is kept is of {_utc(min(known))})" if known else " (it is empty)"


def _utc(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
