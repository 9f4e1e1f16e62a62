"""Whether models may be promoted: their weights, and the policies that would judge by them."""

from collections.abc import Sequence

from fediwarden.promotion.errors import PromotionRefused
from fediwarden.settings import Settings
from scanner.policy import PolicyError
from scanner.promotion.fitting import check_models, check_policies


def check_promotion(settings: Settings, models: Sequence[str]) -> None:
    """Make sure that `models` lie here, verified, and that the policies in force can be judged by them. Blocks.

    Raises `PromotionRefused`, which names the rule and the score that is missing, or `scanner.models.model.ModelError`.
    """
    check_models(settings.scanner, models)
    try:
        check_policies(settings.scanner, models)
    except PolicyError as error:
        raise PromotionRefused(
            f"a policy in force cannot be judged with {', '.join(models)}: {error}. Promote the new model beside the "
            "old one (--beside), change the policy, and then drop the old one with --replaces"
        ) from error
