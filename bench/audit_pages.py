"""How long the pages of a large audit store take, by the clock, over HTTP, and how much memory.

python -m bench.audit_pages --store FILE [--reviewed 0.05] [--looks 5]

FILE is a store of `python -m bench.audit --fill`; it is left with an account and with reviews by two invented people of
a share of what is flagged now, who confirmed it. The pages that `fediwarden audit` serves then listen in this process,
and an admin logs in and looks at each page, one at a time over a real connection: once (which reads templates, too),
and some more times of which the median counts; then as often after a batch of verdicts about what is flagged, of which
half is the largest instance's, and a review, so that what is kept of all that is brought up to date. Seconds are by the
clock, CPU time beside them, in which is the browser's; where the machine is busy, that alone says something. Last come
as many looks at each page while the assessment is made anew all the time, as it is every minute where somebody looks:
the memory at most is that of all of this.
"""

import argparse
import re
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import uvloop
from sqlalchemy import func, insert, select

from bench.audit import peak_mb
from federation_audit.accounts.actions import Actor
from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessor
from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.changes import note_changes
from federation_audit.store.engine import Store
from federation_audit.store.migrating import open_store
from federation_audit.store.queries import instance_id
from federation_audit.store.state import note_reviews_change
from federation_audit.store.tables import EVIDENCE, FLAGS, MEDIA, TEXTS

_NAME, _WORDS = "bench-admin", "four plain words here"
_AIM_MS = 200.0
_HALF = 25
_NEVER_S = 1e9


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--store", type=Path, required=True)
    arguments.add_argument("--reviewed", type=float, default=0.05)
    arguments.add_argument("--looks", type=int, default=5)
    options = arguments.parse_args()
    with open_store(f"sqlite:///{options.store}") as store:
        _review(store, options.reviewed)
        before = peak_mb()
        with _listening(store) as pages:
            preparations = [area.prepare for area in pages.site.areas if area.prepare is not None]
            pages.site.assessor = Assessor(store, every_s=_NEVER_S, preparations=preparations)
            began, began_cpu = time.perf_counter(), time.process_time()
            assessed = pages.site.assessor.refresh()
            took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            print(f"the assessment of {len(assessed.assessment)} instances: {took:.1f} s ({cpu:.1f} of CPU)")
            with httpx.Client(base_url=pages.url, timeout=120) as browser:
                _log_in(browser, pages.url)
                largest = max(assessed.assessment, key=lambda each: each.triage.media).instance
                addresses = _addresses(store, pages, largest)
                firsts = {address: _look(browser, address) for address in addresses}
                for address, first in firsts.items():
                    again = _median(_look(browser, address) for _ in range(options.looks))
                    changed = _median(_look(browser, address) for _ in range(options.looks) if _change(store, largest))
                    late = "  !" if max(again[0], changed[0]) > _AIM_MS else ""
                    said = f"first {_said(first)}, again {_said(again)}, after a change {_said(changed)}"
                    print(f"{address[:60]:60} {said}{late}", flush=True)
                with _assessing(pages):
                    for address in addresses:
                        looks = sorted(_look(browser, address)[0] for _ in range(options.looks))
                        said = f"{looks[len(looks) // 2]:7.1f} ms, {looks[-1]:7.1f} at most"
                        print(f"{address[:60]:60} while all are assessed anew {said}", flush=True)
        print(f"{before:.0f} MB resident before the pages, {peak_mb():.0f} MB at most")


def _review(store: Store, share: float) -> None:
    """Two people confirm every so many of the flagged images, once for each store."""
    with store.writing() as connection:
        if connection.execute(select(func.count()).select_from(REVIEWS)).scalar_one():
            return
        query = (
            select(MEDIA.c.sha256, TEXTS.c.text, FLAGS.c.flagged_at)
            .join(FLAGS, FLAGS.c.media_id == MEDIA.c.id)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .where(FLAGS.c.now == 1)
            .order_by(FLAGS.c.media_id)
        )
        every = max(1, round(1 / share)) if share else 0
        rows = [
            {
                "tenant": tenant,
                "sha256": sha256,
                "reviewer": reviewer,
                "opinion": Opinion.CONFIRM.value,
                "at": at,
                "note": "",
                "answer": f"bench{place}",
            }
            for place, (sha256, tenant, at) in enumerate(connection.execute(query).all())
            if every and place % every == 0
            for reviewer in ("bench-one", "bench-two")
        ]
        if rows:
            connection.execute(insert(REVIEWS), rows)


@contextmanager
def _listening(store: Store) -> Iterator[Pages]:
    """The pages on a free port, served by a thread of this process; an admin of `_NAME` is there."""
    pages = Pages(PagesSettings(port=0), store)
    if _NAME not in {each.name for each in pages.site.users.all()}:
        pages.site.users.add(_NAME, Role.ADMIN, _WORDS, by=Actor("bench"), must_change=False)
    pages.listen()
    loop = uvloop.new_event_loop()  # as the process that serves them has it
    thread = threading.Thread(target=lambda: loop.run_until_complete(pages.serve()), name="pages")
    thread.start()
    try:
        yield pages
    finally:
        loop.call_soon_threadsafe(pages.stop)
        thread.join()
        loop.close()


@contextmanager
def _assessing(pages: Pages) -> Iterator[None]:
    """The assessment is made anew again and again, and each put in the place of the one before."""
    over = threading.Event()

    def assess_on() -> None:
        while not over.is_set():
            pages.site.assessor.refresh()

    thread = threading.Thread(target=assess_on, name="assessing")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _log_in(browser: httpx.Client, origin: str) -> None:
    form = browser.get("/login").text
    found = re.search(r'name="csrf" value="([^"]+)"', form)
    assert found is not None, "the form of the login has changed"
    data = {"name": _NAME, "password": _WORDS, "csrf": found[1]}
    answer = browser.post("/login", data=data, headers={"origin": origin})
    assert answer.status_code == 303, answer.status_code


def _addresses(store: Store, pages: Pages, largest: str) -> list[str]:
    """What is looked at: every page whose content grows with the store."""
    assessment = pages.site.assessor.newest().assessment
    by_size = [each.instance for each in sorted(assessment, key=lambda each: each.triage.media)]
    middle, third = by_size[len(by_size) // 2], by_size[-3]
    with store.reading() as connection:
        query = (
            select(TEXTS.c.text, MEDIA.c.sha256)
            .select_from(EVIDENCE)
            .join(MEDIA, MEDIA.c.id == EVIDENCE.c.media_id)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .limit(1)
        )
        tenant, sha256 = connection.execute(query).one()
        flagged = connection.execute(select(func.count()).select_from(FLAGS)).scalar_one()
    deep = max(1, flagged // 50 * 9 // 10)
    part = quote(largest.partition(".")[0])
    return [
        "/overview",
        "/overview?range=all",
        "/instances",
        "/instances?q=77",
        "/instances?sort=-chance&page=100",
        f"/instances/{largest}",
        f"/instances/{third}",
        f"/instances/{middle}",
        *(f"/instances/{largest}/{name}" for name in ("exposure", "weeks", "course", "incidents", "accounts", "hosts")),
        "/review",
        f"/review?page={deep}",
        f"/review?q={part}&page=2",
        f"/review/{tenant}/{bytes(sha256).hex()}",
        "/reviewed",
        "/decisions",
        f"/decisions/{largest}",
        f"/decisions/{largest}/report",
        "/exports",
        "/actions",
    ]


def _change(store: Store, largest: str) -> bool:
    """Say that some of what is flagged, and a review, has changed."""
    with store.writing() as connection:
        theirs = select(EVIDENCE.c.media_id).where(EVIDENCE.c.instance_id == instance_id(connection, largest))
        some = [
            connection.scalars(select(FLAGS.c.cluster_id).where(which).order_by(FLAGS.c.media_id.desc()).limit(_HALF))
            for which in (FLAGS.c.media_id.in_(theirs), ~FLAGS.c.media_id.in_(theirs))
        ]
        note_changes(connection, {cluster for half in some for cluster in half})
        note_reviews_change(connection)
    return True


def _median(looks: Iterable[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = zip(*looks, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def _said(look: tuple[float, float]) -> str:
    return f"{look[0]:7.1f} ms ({look[1]:6.1f} of CPU)"


def _look(browser: httpx.Client, address: str) -> tuple[float, float]:
    """Milliseconds until the whole page was there, and of CPU."""
    began, began_cpu = time.perf_counter(), time.process_time()
    answer = browser.get(address)
    took = (time.perf_counter() - began) * 1000, (time.process_time() - began_cpu) * 1000
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return took


if __name__ == "__main__":
    main()
