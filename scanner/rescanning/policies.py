"""The policies that a rescan judges by, from their texts."""

from collections.abc import Mapping, Sequence

from scanner.concepts import Concepts
from scanner.models.model import Model, is_embedder
from scanner.policy import PolicyError, parse_policy
from scanner.reloading import InForce
from scanner.scoring import score_labels
from schemas.messages import EVERY_TENANT, RescanOrdered


class RescanPolicies:
    """What judges the images of each tenant that a rescan is about."""

    def __init__(self, policies: Mapping[str, InForce], tenants: Sequence[str]) -> None:
        self._policies = dict(policies)
        self._tenants = frozenset(tenants)

    def concern(self, tenant: str) -> bool:
        """Whether the rescan is about the images of `tenant`."""
        asked = not self._tenants or tenant in self._tenants
        return asked and (tenant in self._policies or EVERY_TENANT in self._policies)

    def of(self, tenant: str) -> InForce:
        """What judges the images of a tenant that the policies `concern`."""
        return self._policies.get(tenant) or self._policies[EVERY_TENANT]


async def prepare_policies(job: RescanOrdered, models: Sequence[Model], concepts: Concepts) -> RescanPolicies:
    """Parse a rescan's policies and make their concepts ready. Raises `PolicyError`, or as `Concepts.prepare`."""
    if not job.policies:
        raise PolicyError(f"rescan {job.rescan}", "it names no policy to judge by; order it again")
    labels = score_labels(models)
    embedders = [model.name for model in models if is_embedder(model)]
    prepared = {}
    for tenant, text in job.policies.items():
        policy = parse_policy(text, labels, source=f"rescan {job.rescan}, policy of {tenant}", embedders=embedders)
        prepared[tenant] = InForce(policy, await concepts.prepare(policy))
    return RescanPolicies(prepared, job.tenants)
