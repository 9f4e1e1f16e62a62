"""The pages of the audit on a real port, in a thread of this process, with their own database."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.passwords import Passwords
from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessor
from federation_audit.pages.service import Pages, all_areas
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.settings import AuditSettings
from federation_audit.store.migrating import open_store
from tests.blocks.area import style_area
from tests.fediverse import LIST, RULES, copy_filled

WORDS = "four plain words here"
"""Everybody's password."""

TEST = Actor("command line (tests)")


def cheap_passwords() -> Passwords:
    """As weak as argon2 allows: a test logs in often."""
    return Passwords(time_cost=1, memory_cost=8, parallelism=1)


@contextmanager
def running_pages(
    folder: Path,
    settings: PagesSettings | None = None,
    *,
    filled: bool = False,
    reviewed: bool = True,
    surroundings: Surroundings | None = None,
    accounts: bool = True,
) -> Iterator[Pages]:
    """Pages with an admin, a reviewer and a viewer of those names, whose password is `WORDS`; or nobody's `accounts`.

    With `filled` they are over a copy of the invented fediverse of `tests.fediverse`, with its `reviewed` or without,
    assessed at its day; `surroundings` are then by default those that know its rules and its list.
    """
    url = f"sqlite:///{folder / 'audit.sqlite'}"
    today = None
    if filled:
        url, world = copy_filled(folder, reviewed=reviewed)
        today = world.today
        audit = AuditSettings(verified_lists=(LIST.partition("@")[0],))
        surroundings = surroundings or Surroundings(audit=audit, sentences=RULES)
    database = open_store(url)
    pages = Pages(
        settings or PagesSettings(port=0),
        database,
        passwords=cheap_passwords(),
        surroundings=surroundings,
        areas=[*all_areas(viewing=surroundings is not None and surroundings.audit.viewing.enabled), style_area()],
    )
    if today is not None:
        told = pages.site.surroundings
        pages.site.assessor = Assessor(
            database,
            every_s=told.audit.assess_every_s,
            verified_lists=told.audit.verified_lists,
            local_domains=told.local_domains,
            today=lambda: today,
        )
    for role in Role if accounts else ():
        pages.site.users.add(role.value, role, WORDS, by=TEST, must_change=False)
    pages.listen()
    loop = asyncio.new_event_loop()

    def serve() -> None:
        loop.run_until_complete(pages.serve())

    thread = threading.Thread(target=serve, name="pages")
    thread.start()
    try:
        yield pages
    finally:
        loop.call_soon_threadsafe(pages.stop)
        thread.join(60)
        loop.close()
        assert not thread.is_alive(), "the pages do not stop"
