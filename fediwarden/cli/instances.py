"""Instances as ``audit instances`` and ``audit instance`` show them: tables of words, and JSON with all there is."""

import math
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import typer

from federation_audit.assessing.assessor import Assessed
from federation_audit.statistics.levels import InstanceAssessment, Level
from federation_audit.store.facts import Role
from federation_audit.store.periods import as_date
from federation_audit.store.queries import (
    Incident,
    InstanceCounts,
    Stratum,
    read_incidents,
    read_instance,
    read_instances,
    read_strata,
)
from fediwarden.cli.audit_store import assess_store
from fediwarden.cli.tables import make_table, print_table

if TYPE_CHECKING:
    from federation_audit.store.engine import Store
    from fediwarden.settings import Settings

_ROLES = {"author": "as author's instance", "community": "as community's instance", "host": "as image host"}


@dataclass(frozen=True, slots=True)
class Everybody:
    """All author's instances, by level (the highest first), then by name. Counts put nobody anywhere."""

    names: list[str]
    counts: dict[str, InstanceCounts]
    strata: dict[int, Stratum]
    assessed: Assessed

    @classmethod
    def read(cls, store: "Store", settings: "Settings") -> "Everybody":
        """Everybody that anything is known of."""
        assessed = assess_store(store, settings)
        with store.reading() as connection:
            counts = {each.domain: each for each in read_instances(connection)}
            strata = read_strata(connection)
        known = assessed.assessment.instances
        names = sorted(
            counts.keys() | known.keys(), key=lambda name: (-known[name].level if name in known else 0, name)
        )
        return cls(names, counts, strata, assessed)

    def as_plain(self) -> list[dict[str, Any]]:
        """All of it as plain values."""
        return [
            _counts_as_plain(self.counts.get(name, InstanceCounts(name)), self.strata)
            | {"assessment": _assessment_as_plain(self.assessed, name)}
            for name in self.names
        ]

    def print(self) -> None:
        """The level of each, how many times the usual it is flagged, and the first reason."""
        if not self.names:
            typer.echo("No image that was judged has a known author's instance yet.")
            return
        typer.echo(_preamble(self.assessed))
        table = make_table("instance", "level", "times the usual (90 %)", "why")
        for name in self.names:
            found = self.assessed.assessment.instances.get(name)
            if found is None:
                table.add_row(name, "-", "-", _NOT_ASSESSED)
            else:
                table.add_row(name, _level(found.level), _interval(found), _why(found))
        print_table(table)


@dataclass(frozen=True, slots=True)
class OneInstance:
    """All that is known of one."""

    name: str
    counts: dict[str, InstanceCounts]
    strata: dict[int, Stratum]
    incidents: list[Incident]
    assessed: Assessed

    @classmethod
    def read(cls, store: "Store", settings: "Settings", name: str) -> "OneInstance":
        """`name` is in the form of `schemas.domains`."""
        assessed = assess_store(store, settings)
        with store.reading() as connection:
            counts = {role: read_instance(connection, name, Role[role.upper()]) for role in _ROLES}
            return cls(name, counts, read_strata(connection), read_incidents(connection, name), assessed)

    @property
    def is_known(self) -> bool:
        """Whether anything is known of it, in any role."""
        counted = any(each.now.exposed for each in self.counts.values())
        return counted or self.name in self.assessed.assessment

    def as_plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain: dict[str, Any] = {role: _counts_as_plain(each, self.strata) for role, each in self.counts.items()}
        plain["incidents"] = [
            {
                "actor": None if each.actor is None else {"key": each.actor[0], "pseudonym": each.actor[1].hex()},
                "day": as_date(each.day).isoformat(),
                "cluster": each.cluster.hex(),
                "images": [sha256.hex() for sha256 in each.media],
            }
            for each in self.incidents
        ]
        return plain | {"assessment": _assessment_as_plain(self.assessed, self.name)}

    def print(self) -> None:
        """Level, reasons, weaknesses, counts in each role, incidents."""
        typer.echo(self.name)
        found = self.assessed.assessment.instances.get(self.name)
        if found is not None:
            typer.echo(_preamble(self.assessed))
            typer.echo(f"level {_level(found.level)}; {_interval(found)}")
            for title, sentences in (("why", found.reasons), ("what weakens it", found.weaknesses)):
                if sentences:
                    typer.echo(f"{title}:")
                    typer.echo("\n".join(f"  {each}" for each in sentences))
        elif self.counts["author"].now.exposed:
            typer.echo(_NOT_ASSESSED)
        for role, each in self.counts.items():
            self._print_counts(role, each)
        self._print_incidents(found)

    def _print_counts(self, role: str, each: InstanceCounts) -> None:
        if not each.now.exposed:
            typer.echo(f"{_ROLES[role]}: nothing known")
            return
        incidents = f", {each.incidents} incidents" if role == "author" else ""
        typer.echo(f"{_ROLES[role]}: {each.now.exposed} images judged, {each.now.flagged} flagged now{incidents}")
        table = make_table("  judged by", "images", "flagged")
        for number, count in sorted(each.strata.items()):
            stratum = self.strata[number]
            by = f"list {stratum.hash_list}" if stratum.is_list else f"{stratum.policy}, {', '.join(stratum.models)}"
            table.add_row(f"  {by}", str(count.exposed), str(count.flagged))
        print_table(table)

    def _print_incidents(self, found: InstanceAssessment | None) -> None:
        if found is not None and found.decision.incidents:
            table = make_table("confirmed incident", "account", "by", "counts")
            independent = {each.incident_id for each in found.decision.independent}
            for each in sorted(found.decision.incidents, key=lambda each: (each.day, each.actor), reverse=True):
                counts = "yes" if each.incident_id in independent else "no"
                table.add_row(str(each.day), _account(each.actor), str(each.confirmed), counts)
            print_table(table)
        if self.incidents:
            table = make_table("flagged incident", "account", "images", "image")
            for one in self.incidents:
                actor = "" if one.actor is None else f"{one.actor[0]}:{one.actor[1].hex()}"
                table.add_row(str(as_date(one.day)), _account(actor), str(len(one.media)), one.cluster.hex()[:16])
            print_table(table)


_NOT_ASSESSED = "Not assessed: one of our own, or judged by lists of known hashes alone."


def _preamble(assessed: Assessed) -> str:
    return f"As of {assessed.assessment.at}. Levels are reasons to look, never verdicts: see docs/evidence.md."


def _why(found: InstanceAssessment) -> str:
    """The reason that says most: what is confirmed, else how it compares."""
    return found.reasons[0 if found.decision.incidents or len(found.reasons) == 1 else 1]


def _level(level: Level) -> str:
    return f"{int(level)} {level.name.lower()}"


def _interval(found: InstanceAssessment) -> str:
    if not _is_comparable(found):
        return "not known"
    triage = found.triage
    return f"{triage.ratio:.1f} ({triage.low:.1f} to {triage.high:.1f}) times the usual"


def _is_comparable(found: InstanceAssessment) -> bool:
    return found.context.prior.learnt and found.triage.media >= found.context.rules.least_media


def _account(actor: str) -> str:
    key, _, pseudonym = actor.partition(":")
    return f"{key}-{pseudonym[:8]}" if pseudonym else "not known"


def _counts_as_plain(each: InstanceCounts, strata: dict[int, Stratum]) -> dict[str, Any]:
    return {
        "domain": each.domain,
        "images": each.now.exposed,
        "flagged": each.now.flagged,
        "incidents": each.incidents,
        "strata": [
            {
                "models": strata[number].models,
                "policy": strata[number].policy,
                "hash_list": strata[number].hash_list,
                "images": count.exposed,
                "flagged": count.flagged,
            }
            for number, count in sorted(each.strata.items())
        ],
    }


def _day(at: date | None) -> str | None:
    return None if at is None else at.isoformat()


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _assessment_as_plain(assessed: Assessed, name: str) -> dict[str, Any] | None:
    """Every number of an assessment, with the rows of exposure behind it; None of those that are not assessed."""
    found = assessed.assessment.instances.get(name)
    if found is None:
        return None
    triage, decision, context = found.triage, found.decision, found.context
    independent = {each.incident_id for each in decision.independent}
    return {
        "at": context.at.isoformat(),
        "level": {"number": int(found.level), "name": found.level.name.lower()},
        "expires": _day(found.expires),
        "reasons": list(found.reasons),
        "weaknesses": list(found.weaknesses),
        "images": triage.media,
        "flagged": triage.flagged,
        "usual": triage.expected,
        "times_the_usual": {"estimate": triage.ratio, "low": triage.low, "high": triage.high, "interval": 0.9}
        if _is_comparable(found)
        else None,
        "since": decision.since.isoformat(),
        "images_since": decision.media,
        "tolerable": decision.tolerable,
        "log_e_value": _finite(decision.log_e),
        "level_3_asks_log_e_value": _finite(context.asked_log_e),
        "tested": decision.tested,
        "named": decision.selected,
        "accounts": decision.actors,
        "days": decision.days,
        "incidents": [
            {
                "id": each.incident_id,
                "day": each.day.isoformat(),
                "actor": each.actor,
                "cluster": each.cluster,
                "confirmed_by": str(each.confirmed),
                "image_host": each.image_host,
                "confidence": str(each.confidence),
                "counts": each.incident_id in independent,
            }
            for each in (*decision.incidents, *decision.possible)
        ],
        "letter": None
        if found.contact is None
        else {"sent": found.contact.sent.isoformat(), "answered": _day(found.contact.answered)},
    }
