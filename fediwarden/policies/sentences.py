"""What the rules of the policies in force mean, in a sentence each: for those who see that a rule fired."""

import structlog

from fediwarden.settings import Settings
from scanner.models.loading import every_embedder, every_label
from scanner.models.model import ModelError
from scanner.policy import PolicyError, load_policies

log = structlog.get_logger("fediwarden.policies")


def read_sentences(settings: Settings) -> dict[str, str]:
    """The sentence (`says`) of each rule, by its name; of two rules of one name, that of the policy for everyone.

    None where the policies cannot be read: whoever shows rules names them then, so that nothing stops for it.
    """
    scanner = settings.scanner
    try:
        policies = load_policies(scanner.policy, scanner.policies, every_label(), every_embedder(scanner.registry))
    except (PolicyError, ModelError) as error:
        log.warning("the policies' sentences are not known", why=str(error))
        return {}
    ordered = (*policies.tenants.values(), policies.everyone)
    return {rule.name: rule.says for policy in ordered for rule in policy.rules}
