"""What people say of an instance, and their forms: decision, notes, letters, contacts, clean-ups.

The section is `templates/instance_people.html`; any page of an instance may include it, with what `people_of` gives.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from federation_audit.accounts.roles import Role
from federation_audit.cases import Action
from federation_audit.deciding.addresses import addresses_of
from federation_audit.deciding.decisions import DAYS_MOST, DEFAULT_DAYS, State, decisions_of
from federation_audit.deciding.errors import NotDecided
from federation_audit.deciding.letters import letters_of
from federation_audit.deciding.notes import notes_of
from federation_audit.deciding.remediations import cleanups_of
from federation_audit.pages.caseload import LEVELS, level_of
from federation_audit.pages.cells import Tone
from federation_audit.pages.visits import Visit
from federation_audit.sending.drafting import ready_ways
from federation_audit.sending.journal import entries_about

ACTIONS: Final = {
    Action.NONE: ("no action", "it was looked at, and nothing is done"),
    Action.CONTACT: ("contact", "its admins are written to, nothing else"),
    Action.RESTRICT_MEDIA: ("restrict media", "its images are no longer taken"),
    Action.DEFEDERATE: ("defederate", "nothing of it is taken"),
}
"""Each action's words, and what it means."""

STATES: Final[dict[State, Tone]] = {
    State.IN_FORCE: "good",
    State.EXPIRING: "watch",
    State.DUE: "warn",
    State.OVER: "plain",
}


def people_of(
    here: Visit, domain: str, *, typed: Mapping[str, str] | None = None, fault: NotDecided | None = None
) -> dict[str, Any]:
    """What `templates/instance_people.html` shows of `domain`, as its variable `people`.

    `typed` is what was entered in the form that `fault` is about.
    """
    audit = here.site.surroundings.audit
    with here.site.database.reading() as connection:
        decisions = decisions_of(connection, domain)
        people = {
            "notes": notes_of(connection, domain),
            "letters": letters_of(connection, domain),
            "cleanups": cleanups_of(connection, domain),
            "addresses": addresses_of(connection, domain),
            "entries": entries_about(connection, domain),
        }
    standing = next((each for each in decisions if each.ended_at is None), None)
    level = level_of(here.site.assessor.newest(), domain)
    return people | {
        "domain": domain,
        "at": f"/decisions/{quote(domain, safe='')}",
        "back": here.request.url.path if here.request.method == "GET" else "",
        "decision": standing,
        "state": None if standing is None else standing.state(here.now_ms),
        "states": STATES,
        "past": [each for each in decisions if each.ended_at is not None],
        "level": level,
        "levels": LEVELS,
        "actions": ACTIONS,
        "days": DEFAULT_DAYS,
        "days_most": DAYS_MOST,
        "today": datetime.fromtimestamp(here.now_ms / 1000, UTC).date().isoformat(),
        "may_decide": here.user.role.includes(Role.ADMIN),
        "may_note": here.user.role.includes(Role.REVIEWER),
        "asks": audit.contacts.enabled,
        "ways": ready_ways(audit.mail, audit.targets),
        "typed": defaultdict(str, typed or {}),
        "fault": str(fault or ""),
        "fault_field": "" if fault is None else fault.field,
    }
