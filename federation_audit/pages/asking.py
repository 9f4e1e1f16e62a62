"""Whatever a page asks of the network: from its thread, within a limit."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from federation_audit.sending.contacts import Found, find_contacts
from federation_audit.sending.errors import NotSent
from federation_audit.sending.settings import ContactSettings

Result = TypeVar("Result")

WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What an instance said of its contacts, if it was asked; `fault` why it was not."""

    found: Found | None
    fault: str = ""


def run_within(question: Coroutine[Any, Any, Result], within_s: float = WITHIN_S) -> Result:
    """Run it in this thread, which has no event loop. Raises `TimeoutError`."""

    async def limited() -> Result:
        async with asyncio.timeout(within_s):
            return await question

    return asyncio.run(limited())


def ask_for_contacts(domain: str, settings: ContactSettings, within_s: float = WITHIN_S) -> Asked:
    """Ask `domain` who its admins are, where the settings allow it."""
    port = 443 if 443 in settings.ports or not settings.ports else settings.ports[0]
    try:
        return Asked(run_within(find_contacts(domain, settings, port=port), within_s))
    except TimeoutError:
        return Asked(Found((), ("it did not answer in time",)))
    except NotSent as error:
        return Asked(None, str(error))
