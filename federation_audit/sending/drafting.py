"""From a wish to a plan, and from a confirmed plan to its sending: one way for each place that something can go to.

`draft` makes the plan that a person is shown; `send` makes it again from what is known then, and refuses when it is not
the one that was shown. What makes two drafts of the same words different (nonce, moment) travels with the confirmation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pydantic import SecretStr

from federation_audit.cases import Judged
from federation_audit.exports.coop import incident_id
from federation_audit.exports.fediseer import Opinion
from federation_audit.sending.confirming import Confirmation, Plan, Sent
from federation_audit.sending.coop import Coop
from federation_audit.sending.dispatching import Journal, Sender, dispatch
from federation_audit.sending.errors import Changed, NotSent
from federation_audit.sending.fediseer import Fediseer
from federation_audit.sending.lemmy import open_lemmy
from federation_audit.sending.lemmy_0_19 import Lemmy019
from federation_audit.sending.mail import Mail
from federation_audit.sending.mastodon import Mastodon
from federation_audit.sending.settings import MailSettings, TargetSettings


class Way(StrEnum):
    """Where something goes to."""

    MAIL = "mail"
    LEMMY = "lemmy"
    MASTODON = "mastodon"
    FEDISEER = "fediseer"
    COOP = "coop"


class NotSetUp(NotSent):
    """The settings do not say where to, or with which key."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants to send: `to` is the address of a mail, `opinion` what Fediseer is told, `incident` the id
    (`exports.coop.incident_id`) of the one that Coop is handed. `reporter` is who wants it, `at` when they did."""

    way: Way
    reporter: str
    at: datetime
    to: str = ""
    opinion: Opinion = Opinion.HESITATION
    incident: str = ""


def ready_ways(mail: MailSettings, targets: TargetSettings) -> frozenset[Way]:
    """The ways that the settings have what is needed for."""
    ready = {
        Way.MAIL: bool(mail.host and mail.sender),
        Way.LEMMY: targets.lemmy.ready,
        Way.MASTODON: targets.mastodon.ready,
        Way.FEDISEER: targets.fediseer.ready,
        Way.COOP: targets.coop.ready,
    }
    return frozenset(way for way, is_ready in ready.items() if is_ready)


class Drafts:
    """Makes and sends plans, as the settings have it."""

    def __init__(self, mail: MailSettings, targets: TargetSettings) -> None:
        self._mail = mail
        self._targets = targets

    async def draft(self, wish: Wish, judged: Sequence[Judged]) -> Plan:
        """The plan; of several cases only where a Lemmy 0.19 is told. Raises `NotSent`, `NotExpressible` and
        `NothingToReport`."""
        async with self._opened(wish, judged) as (_, plan):
            return await plan()

    async def send(
        self, wish: Wish, judged: Sequence[Judged], confirmation: Confirmation, nonce: str, journal: Journal
    ) -> Sent:
        """Send what was shown, once. Raises as `draft` does, `Changed` when it would be another plan now."""
        async with self._opened(wish, judged) as (sender, make):
            plan = replace(await make(), nonce=nonce)
            if plan.digest != confirmation.digest:
                raise Changed(
                    "what would be sent now is not what you were shown, so nothing was sent: look at it again"
                )
            return await dispatch(plan, confirmation, sender, journal, at=confirmation.at)

    @asynccontextmanager
    async def _opened(
        self, wish: Wish, judged: Sequence[Judged]
    ) -> AsyncIterator[tuple[Sender, Callable[[], Awaitable[Plan]]]]:
        """Who sends, and how its plan is made."""
        targets, wait = self._targets, self._targets.answer_within_s
        one = judged[0]
        if wish.way is not Way.LEMMY and len(judged) != 1:
            raise NotSent("only Lemmy takes several instances at once")
        if wish.way not in ready_ways(self._mail, targets):
            raise NotSetUp(_MISSING[wish.way])
        match wish.way:
            case Way.MAIL:
                mail = Mail(self._mail)
                yield mail, _at_once(lambda: mail.plan(one.case, wish.to))
            case Way.LEMMY:
                own = targets.lemmy
                lemmy = await open_lemmy(own.address, _secret(own.token), own.version, answer_within_s=wait)
                try:
                    if isinstance(lemmy, Lemmy019):
                        old = lemmy
                        yield old, lambda: old.plan(judged)
                    elif len(judged) != 1:
                        raise NotSent("Lemmy 1.0 takes one instance at a time, each with its own end")
                    else:
                        new = lemmy
                        yield new, lambda: new.plan(one)
                finally:
                    await lemmy.close()
            case Way.MASTODON:
                mastodon = Mastodon(targets.mastodon.address, _secret(targets.mastodon.token), answer_within_s=wait)
                try:
                    yield mastodon, lambda: mastodon.plan(one)
                finally:
                    await mastodon.close()
            case Way.FEDISEER:
                said = targets.fediseer
                fediseer = Fediseer(_secret(said.key), address=said.address, answer_within_s=wait)
                try:
                    yield fediseer, _at_once(lambda: fediseer.plan(one, wish.opinion))
                finally:
                    await fediseer.close()
            case Way.COOP:
                own_coop = targets.coop
                coop = Coop(own_coop.address, _secret(own_coop.key), own_coop.types, answer_within_s=wait)
                try:
                    yield coop, _at_once(lambda: _coop_plan(coop, one, wish))
                finally:
                    await coop.close()


def _coop_plan(coop: Coop, judged: Judged, wish: Wish) -> Plan:
    case = judged.case
    found = next((each for each in case.incidents if incident_id(case, each) == wish.incident), None)
    if found is None:
        raise NotSent("this incident is not in the case any more: look at the instance again")
    return coop.plan(case, found, reporter=wish.reporter, at=wish.at)


def _at_once(make: Callable[[], Plan]) -> Callable[[], Awaitable[Plan]]:
    async def made() -> Plan:
        return make()

    return made


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()


_MISSING = {
    Way.MAIL: "no mail is set up: set audit.mail.host and audit.mail.sender",
    Way.LEMMY: "no Lemmy is set up: set audit.targets.lemmy.address and audit.targets.lemmy.token",
    Way.MASTODON: "no Mastodon is set up: set audit.targets.mastodon.address and audit.targets.mastodon.token",
    Way.FEDISEER: "no Fediseer is set up: set audit.targets.fediseer.key",
    Way.COOP: "no Coop is set up: set audit.targets.coop.address, .key, .item_type and .reporter_type",
}
