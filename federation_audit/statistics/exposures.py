"""Exposure as columns: what a database counted for 20,000 instances fits numpy, not 20,000 times objects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from federation_audit.statistics.events import Exposure, InvalidEvidence, Stratum

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]  # half the memory: a large store has a million rows, and two tables at a time
Bools = npt.NDArray[np.bool_]

UNATTRIBUTED = -1
_MOST = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, eq=False)
class ExposureTable:
    """Rows of `Exposure`, one array a field, in one order whatever order they came in: sums are equal bit for bit.

    `instance` and `stratum` are places in `instances` and `strata` (sorted; `UNATTRIBUTED` where the instance is not
    known); `first` and `last` are `date.toordinal`; `media`, `flagged` and `busiest` are below 2**31.
    """

    instances: tuple[str, ...]
    strata: tuple[Stratum, ...]
    instance: Ints
    stratum: Ints
    first: Ints
    last: Ints
    media: Ints
    flagged: Ints
    busiest: Ints

    @classmethod
    def from_rows(cls, rows: Iterable[Exposure]) -> Self:
        """The table of `rows`. Raises `InvalidEvidence`."""
        every = list(rows)
        return cls.from_columns(
            instances=[row.instance for row in every],
            strata=[row.stratum for row in every],
            first=[row.first for row in every],
            last=[row.last for row in every],
            media=[row.media for row in every],
            flagged=[row.flagged for row in every],
            busiest=[row.busiest for row in every],
        )

    @classmethod
    def from_columns(
        cls,
        *,
        instances: Sequence[str | None],
        strata: Sequence[Stratum],
        first: Sequence[date],
        last: Sequence[date],
        media: Sequence[int],
        flagged: Sequence[int],
        busiest: Sequence[int] | None = None,
    ) -> Self:
        """The table of columns as a database gives them, all of one length. Raises `InvalidEvidence`."""
        lengths = {len(column) for column in (instances, strata, first, last, media, flagged)}
        if len(lengths | ({len(busiest)} if busiest is not None else set())) != 1:
            raise InvalidEvidence("the columns of an exposure table must be of one length")
        names = sorted({name for name in instances if name is not None})
        kinds = sorted(set(strata))
        name_at: dict[str | None, int] = {name: place for place, name in enumerate(names)}
        name_at[None] = len(names)
        kind_at = {kind: place for place, kind in enumerate(kinds)}
        return cls.from_codes(
            instances=[*names, None],
            strata=kinds,
            instance=np.array([name_at[name] for name in instances], dtype=np.int64),
            stratum=np.array([kind_at[kind] for kind in strata], dtype=np.int64),
            first=np.array([day.toordinal() for day in first], dtype=np.int64),
            last=np.array([day.toordinal() for day in last], dtype=np.int64),
            media=np.array(media),
            flagged=np.array(flagged),
            busiest=None if busiest is None else np.array(busiest),
        )

    @classmethod
    def from_codes(
        cls,
        *,
        instances: Sequence[str | None],
        strata: Sequence[Stratum],
        instance: npt.NDArray[Any],
        stratum: npt.NDArray[Any],
        first: npt.NDArray[Any],
        last: npt.NDArray[Any],
        media: npt.NDArray[Any],
        flagged: npt.NDArray[Any],
        busiest: npt.NDArray[Any] | None = None,
    ) -> Self:
        """The table of arrays of one length: `instance` and `stratum` hold places in `instances` and `strata`, which
        need no order; `first` and `last` are `date.toordinal`. Raises `InvalidEvidence`."""
        used = {instances[place] for place in np.unique(instance)}
        names = sorted({name for name in used if name is not None})
        kinds = sorted({strata[place] for place in np.unique(stratum)})
        name_at: dict[str | None, int] = {name: place for place, name in enumerate(names)}
        name_at[None] = UNATTRIBUTED
        kind_at = {kind: place for place, kind in enumerate(kinds)}
        instance_places = np.array([name_at.get(name, UNATTRIBUTED) for name in instances], dtype=np.int32)
        stratum_places = np.array([kind_at.get(kind, -1) for kind in strata], dtype=np.int32)
        columns: dict[str, Ints] = {
            "instance": instance_places[instance],
            "stratum": stratum_places[stratum],
            "first": np.asarray(first, dtype=np.int32),
            "last": np.asarray(last, dtype=np.int32),
            "media": _counts("media", media),
            "flagged": _counts("flagged", flagged),
            "busiest": np.zeros(len(media), dtype=np.int32) if busiest is None else _counts("busiest", busiest),
        }
        _check(columns)
        order = np.lexsort(tuple(columns[key] for key in reversed(columns)))
        return cls(tuple(names), tuple(kinds), **{key: columns.pop(key)[order] for key in list(columns)})

    @property
    def attributed(self) -> Bools:
        """Which rows have an instance."""
        return np.asarray(self.instance != UNATTRIBUTED)

    @property
    def newest_strata(self) -> tuple[Stratum, ...]:
        """Those that have rows of the newest period."""
        if not len(self.first):
            return ()
        return tuple(self.strata[each] for each in np.unique(self.stratum[self.first == self.first.max()]))

    def keep(self, rows: Bools) -> Self:
        """Only these rows; instances and strata keep their places."""
        if rows.all():
            return self
        kept = {name: getattr(self, name)[rows] for name in ("instance", "stratum", "first", "last")}
        counts = {name: getattr(self, name)[rows] for name in ("media", "flagged", "busiest")}
        return type(self)(self.instances, self.strata, **kept, **counts)

    def without(self, domains: frozenset[str]) -> Self:
        """Without the rows of these instances, and without their names."""
        wanted = np.array([name not in domains for name in self.instances], dtype=np.bool_)
        if wanted.all():
            return self
        place = np.append(np.cumsum(wanted) - 1, UNATTRIBUTED)  # the last is where UNATTRIBUTED (-1) points
        left = self.keep(np.append(wanted, True)[self.instance])
        names = tuple(name for name, is_wanted in zip(self.instances, wanted, strict=True) if is_wanted)
        values: dict[str, Any] = {name: getattr(left, name) for name in ("stratum", "first", "last")}
        values |= {name: getattr(left, name) for name in ("media", "flagged", "busiest")}
        return type(self)(names, self.strata, place[left.instance], **values)

    def add_up(self, values: Floats | Ints) -> Floats:
        """`values` (one a row) added up for each instance."""
        known = np.searchsorted(self.instance, 0)  # rows are in the order of instances, those without one first
        sums = np.bincount(self.instance[known:], weights=values[known:], minlength=len(self.instances))
        return np.asarray(sums, dtype=np.float64)


def _counts(name: str, values: npt.NDArray[Any]) -> Ints:
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= _MOST):
        raise InvalidEvidence(f"{name} is a count, 0 or more and at most {_MOST}")
    return np.asarray(values, dtype=np.int32)


def _check(columns: dict[str, Ints]) -> None:
    if (columns["flagged"] > columns["media"]).any():
        raise InvalidEvidence("flagged is more than media: incidents are at most as many as the images they are of")
    if (columns["busiest"] > columns["media"]).any():
        raise InvalidEvidence("busiest is more than media: it is a part of them")
    if (columns["last"] < columns["first"]).any():
        raise InvalidEvidence("last is before first: a period ends on the day it begins, or later")
