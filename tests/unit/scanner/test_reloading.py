"""Policies that change while images are judged: when they come into force, and what keeps the old ones."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from scanner.concepts import Concepts, PolicyConcepts
from scanner.models.model import ModelError
from scanner.policy import Policy, PolicySet, load_policies
from scanner.reloading import LivePolicies, Prepare, Reloader

TEXT = """
[policy]
name = "red"
[[rule]]
name = "red"
says = "Red."
decision = "reject"
when = {{ score = "a/red", at_least = {} }}
"""


class Watched:
    """A policy file with a reloader on it that looks all the time."""

    def __init__(self, folder: Path, prepare: Prepare | None = None) -> None:
        self.file = folder / "policy.toml"
        self.write(0.5)
        self.happened: list[str] = []
        first = self._read()
        self.policies = LivePolicies(first, {policy.id: PolicyConcepts({}) for policy in first.all})
        self.reloader = Reloader(
            self.policies,
            files=[self.file],
            read=self._read,
            prepare=prepare or self._prepare,
            announce=lambda: self.happened.append("announced"),
            every_s=0.001,
        )

    @property
    def in_force(self) -> str:
        return self.policies.of("anyone").policy.id

    def write(self, threshold: object) -> None:
        self.file.write_text(TEXT.format(threshold))

    def _read(self) -> PolicySet:
        return load_policies(self.file, {}, ["a/red"])

    async def _prepare(self, policies: Sequence[Policy]) -> dict[str, PolicyConcepts]:
        prepared = await Concepts([]).prepare_all(policies)
        self.happened += [f"prepared {policy.id}, {self.in_force} in force" for policy in policies]
        return prepared

    async def run_until(self, holds: Callable[[], object]) -> None:
        running = asyncio.create_task(self.reloader.run())
        async with asyncio.timeout(30):
            while not holds():
                assert not running.done()
                await asyncio.sleep(0.001)
        running.cancel()


def test_a_policy_is_prepared_while_the_old_one_is_in_force_then_switched_and_announced(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    before = watched.in_force
    watched.write(0.75)
    asyncio.run(watched.run_until(lambda: "announced" in watched.happened))
    assert watched.in_force != before
    assert watched.happened == [f"prepared {watched.in_force}, {before} in force", "announced"]


def test_a_broken_or_missing_file_changes_nothing_until_it_is_mended(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    before = watched.in_force
    looks = 0

    def count() -> bool:
        nonlocal looks
        looks += 1
        return looks > 20

    for spoil in (lambda: watched.write('"half'), watched.file.unlink):
        looks = 0
        spoil()
        asyncio.run(watched.run_until(count))
        assert watched.in_force == before
        assert watched.happened == []
    watched.write(0.75)
    asyncio.run(watched.run_until(lambda: watched.happened))
    assert watched.in_force != before


def test_policies_that_a_model_cannot_prepare_for_do_not_come_into_force(tmp_path: Path) -> None:
    tried = []

    async def fail(policies: Sequence[Policy]) -> None:
        tried.append(policies)
        raise ModelError("the text tower is not there")

    watched = Watched(tmp_path, fail)
    before = watched.in_force
    watched.write(0.75)
    asyncio.run(watched.run_until(lambda: tried))
    assert watched.in_force == before
    assert watched.happened == []
