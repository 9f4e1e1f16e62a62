"""Which policy judges whose images."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scanner.policy.judging import Policy
from scanner.policy.loading import load_policy
from schemas.messages import EVERY_TENANT


@dataclass(frozen=True)
class PolicySet:
    """The policy for everyone, and those of the tenants that have one of their own."""

    everyone: Policy
    tenants: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, tenant: str) -> Policy:
        """The policy for the images of `tenant`."""
        return self.tenants.get(tenant, self.everyone)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Each policy once."""
        return tuple({policy.id: policy for policy in (self.everyone, *self.tenants.values())}.values())

    @property
    def ids(self) -> dict[str, str]:
        """Policy ids as `ScannerAnnounced.policies` has them."""
        return {EVERY_TENANT: self.everyone.id} | {tenant: policy.id for tenant, policy in self.tenants.items()}


def load_policies(
    everyone: Path | None,
    tenants: Mapping[str, Path],
    labels: Collection[str],
    embedders: Collection[str] = (),
) -> PolicySet:
    """Read and check them all, as `load_policy` does. Raises `PolicyError`."""
    return PolicySet(
        load_policy(everyone, labels, embedders),
        {tenant: load_policy(path, labels, embedders) for tenant, path in tenants.items()},
    )
