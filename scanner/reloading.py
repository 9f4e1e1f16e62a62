"""Taking up changed policy files while images are judged.

The files are looked at once a second (one stat each): that also works where inotify says nothing, as on network file
systems, for files mounted one by one into a container, and for the swapped links of a Kubernetes ConfigMap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from scanner.concepts import PolicyConcepts
from scanner.models.model import ModelError
from scanner.policy import Policy, PolicyError, PolicySet

log = structlog.get_logger("scanner.reloading")

LOOK_EVERY_S = 1.0

Prepare = Callable[[Sequence[Policy]], Awaitable[Mapping[str, PolicyConcepts]]]
"""Makes ready what policies need before they judge: the text features of their concepts, by policy id."""

_Stamp = tuple[int, int, int] | None


class InForce(NamedTuple):
    """A policy, and the text features of its concepts."""

    policy: Policy
    concepts: PolicyConcepts


class LivePolicies:
    """The policies in force. Whoever judges takes an image's policy once, and names that one in the verdict."""

    def __init__(self, policies: PolicySet, concepts: Mapping[str, PolicyConcepts]) -> None:
        self._policies = policies
        self._concepts = concepts

    def of(self, tenant: str) -> InForce:
        """What is in force for `tenant`."""
        policy = self._policies.of(tenant)
        return InForce(policy, self._concepts[policy.id])

    @property
    def ids(self) -> dict[str, str]:
        """The ids in force, as `ScannerAnnounced.policies` has them."""
        return self._policies.ids

    def switch(self, policies: PolicySet, concepts: Mapping[str, PolicyConcepts]) -> None:
        """Put others in force, for every image that is judged from now on."""
        self._policies = policies
        self._concepts = concepts


class Reloader:
    """Reads policies anew when one of `files` changes, and puts them in force together.

    `read` gives all of them, checked; `prepare` runs before the switch, `announce` right after it. Policies that are
    wrong or cannot be prepared are logged, and those in force stay until a file changes again.
    """

    def __init__(
        self,
        policies: LivePolicies,
        *,
        files: Sequence[Path],
        read: Callable[[], PolicySet],
        prepare: Prepare,
        announce: Callable[[], None],
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._policies = policies
        self._files = tuple(files)
        self._read = read
        self._prepare = prepare
        self._announce = announce
        self._every_s = every_s
        self._seen = self._stamps()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            # In a thread: a network file system may keep us waiting.
            stamps = await asyncio.to_thread(self._stamps)
            if stamps != self._seen:
                self._seen = stamps
                await self._reload()

    async def _reload(self) -> None:
        before = self._policies.ids
        try:
            policies = await asyncio.to_thread(self._read)
            concepts = await self._prepare(policies.all)
        except (PolicyError, ModelError) as error:
            log.error("policy_refused", error=str(error), in_force=before)
            return
        self._policies.switch(policies, concepts)
        self._announce()
        log.info("policy_changed", before=before, now=policies.ids)

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
