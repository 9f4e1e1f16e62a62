"""From what was seen to what is known: origins, each as sure as it is."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

import structlog

from gateway.relay.metrics import RelayMetrics
from gateway.relay.observing import Seen, Watch
from gateway.relay.origins import Recent
from gateway.relay.reading_back import ReadingBack
from gateway.relay.rejections import Failure, Rejections
from gateway.relay.targets import Aim, Way, aim_of
from gateway.relay.tokens import claims_of
from gateway.relay.uploaders import Uploaders
from gateway.replies import Scope
from schemas.clock import now_ms
from schemas.domains import NotADomain, domain_of, normalise_domain
from schemas.messages import (
    AnswerGiven,
    Confidence,
    OriginAuthor,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
)
from schemas.pseudonyms import Pseudonyms

log = structlog.get_logger("gateway.relay")

ALIAS_MOST = 256
_BACKGROUNDED_MOST = 2_000


class Learner:
    """Learns for one tenant, whose software's users are those of `domain` (None: uploaders stay unknown).

    `offer` takes what is learned, and says False where it had to let it drop. `uploaders` is told who uploads, where
    there is somebody to ask for their ActivityPub ids.
    """

    def __init__(
        self,
        tenant: str,
        domain: str | None,
        *,
        pseudonyms: Pseudonyms,
        offer: Callable[[OriginObserved], bool],
        recent: Recent,
        rejections: Rejections,
        reading_back: ReadingBack,
        metrics: RelayMetrics,
        observer: str,
        uploaders: Uploaders | None = None,
    ) -> None:
        self._uploaders = uploaders
        self._tenant = tenant
        self._domain = domain
        self._pseudonyms = pseudonyms
        self._offer = offer
        self._recent = recent
        self._rejections = rejections
        self._reading_back = reading_back
        self._metrics = metrics
        self._observer = observer
        self._backgrounded: OrderedDict[str, Seen] = OrderedDict()
        self._being_read: set[str] = set()
        self._warned = False

    def watch(self, scope: Scope) -> Watch | None:
        """What is to be seen of a request; None where it tells nothing."""
        aim = aim_of(scope["method"], scope["path"], scope["query_string"])
        if aim is None:
            return None
        return Watch(aim, self._author(scope) if aim.uploads else None, self.learn)

    def learn(self, seen: Seen) -> None:
        """Draw the conclusions from an exchange that is over."""
        if seen.aim.way is Way.CLAIM:
            self._learn_claim(seen)
        elif seen.rejected:
            self._learn_rejection(seen)
        elif not 200 <= seen.status < 400:
            return
        elif seen.aim.way is Way.PROXY:
            self._learn_proxied(seen)
        else:
            for file in seen.answer.files:
                self._learn_stored(seen, file.file)
            for each in seen.answer.uploads:
                self._backgrounded[each.upload_id] = seen
                if len(self._backgrounded) > _BACKGROUNDED_MOST:
                    self._backgrounded.popitem(last=False)

    def _learn_claim(self, seen: Seen) -> None:
        if not (seen.rejected or seen.answer.files):
            return  # 204: not ready yet
        begun = self._backgrounded.pop(seen.aim.upload_id, None)
        if begun is None:
            return
        whole = seen.model_copy(update={"aim": begun.aim, "author": begun.author, "began_at": begun.began_at})
        if seen.rejected:
            self._learn_rejection(whole)
        else:
            for file in seen.answer.files:
                self._learn_stored(whole, file.file)

    def _learn_stored(self, seen: Seen, alias: str) -> None:
        """An upload, import or download has an alias; its hash comes from reading it back."""
        if not 0 < len(alias) <= ALIAS_MOST:  # an import may bring one of any length
            return

        def publish(sha256: bytes) -> None:
            self._offer(self._origin(seen, alias=alias, sha256=sha256, confidence=Confidence.CERTAIN))

        self._reading_back.ask(b"/image/original/" + quote(alias, safe="").encode("ascii"), publish)

    def _learn_proxied(self, seen: Seen) -> None:
        url = seen.aim.url

        def publish(sha256: bytes) -> None:
            self._being_read.discard(url)
            self._publish_proxied(self._origin(seen, sha256=sha256, confidence=Confidence.CERTAIN))

        if seen.sha256:
            publish(seen.sha256)
        elif (self._tenant, url, b"") not in self._recent and url not in self._being_read:
            self._being_read.add(url)
            self._reading_back.ask(b"/image/original?" + seen.aim.query, publish)

    def _learn_rejection(self, seen: Seen) -> None:
        about = seen.aim.url or None
        settle = partial(self._settle, seen)
        self._rejections.note(Failure(self._tenant, seen.began_at, seen.ended_at, about, settle))

    def _settle(self, seen: Seen, answer: AnswerGiven | None) -> None:
        self._metrics.rejections[answer is not None].inc()
        if answer is not None:
            origin = self._origin(seen, sha256=answer.sha256, confidence=Confidence.LIKELY, at=answer.answered_at)
        elif seen.aim.url:
            origin = self._origin(seen, confidence=Confidence.CERTAIN)
        else:
            return  # a refused upload that nothing names
        if seen.aim.way is Way.PROXY:
            self._publish_proxied(origin)
        else:
            self._offer(origin)

    def _publish_proxied(self, origin: OriginObserved) -> None:
        """Once an hour for an address and a hash; an address alone is no news when its hash has been told."""
        address = (self._tenant, origin.url, b"")
        whole = (self._tenant, origin.url, origin.sha256)
        news = self._recent.note(whole)
        if origin.sha256:
            self._recent.note(address)
        if news and not self._offer(origin):
            self._recent.forget(whole)
            self._recent.forget(address)

    def _origin(
        self, seen: Seen, *, confidence: Confidence, sha256: bytes = b"", alias: str = "", at: int | None = None
    ) -> OriginObserved:
        """What `seen` says, with `confidence` in that it is about the image which is named."""
        place = _place(seen.aim)
        url = seen.aim.url
        author = seen.author
        if author is not None and confidence is not Confidence.CERTAIN:
            author = author.model_copy(update={"confidence": confidence})
        # A proxied image is fetched when somebody looks: that may be long after it was put where it is.
        sure = Confidence.POSSIBLE if place is Place.PROXIED else confidence
        return OriginObserved(
            tenant=self._tenant,
            sha256=sha256,
            alias=alias,
            url=url,
            place=place,
            method=OriginMethod.RELAY,
            host=OriginHost(domain=domain_of(url), confidence=confidence) if url else None,
            author=author,
            moment=OriginMoment(at=seen.ended_at if at is None else at, confidence=sure),
            observed_at=now_ms(),
            observer=self._observer,
        )

    def _author(self, scope: Scope) -> OriginAuthor | None:
        """Who uploads. Without a token that can be read, only that it is somebody of the tenant's own."""
        if self._domain is None:
            return None
        claims = claims_of(scope["headers"])
        if claims is None:
            return OriginAuthor(instance=self._domain, confidence=Confidence.LIKELY)
        if claims.issuer and not _same_domain(claims.issuer, self._domain):
            if not self._warned:
                log.warning(
                    "tokens are issued by another domain than this tenant has: uploaders stay unknown",
                    tenant=self._tenant,
                    domain=self._domain,
                    remedy=f"set tenants.{self._tenant}.domain to the hostname in Lemmy's settings",
                )
            self._warned = True
            return None
        pseudonym = self._pseudonyms.pseudonym(f"local-user:{self._domain}:{claims.sub}")
        if pseudonym is None:
            return OriginAuthor(instance=self._domain, confidence=Confidence.LIKELY)
        if self._uploaders is not None:
            self._uploaders.note(pseudonym, claims.sub)
        return OriginAuthor(
            instance=self._domain,
            pseudonym=pseudonym.value,
            key_id=pseudonym.key_id,
            confidence=Confidence.CERTAIN,
        )


def _place(aim: Aim) -> Place:
    if aim.way is Way.PROXY:
        return Place.PROXIED
    return Place.UPLOAD if aim.uploads else Place.IMPORTED


def _same_domain(one: str, other: str) -> bool:
    try:
        return normalise_domain(one) == other
    except NotADomain:
        return False
