"""What can go wrong with a promotion."""

from fediwarden.exits import FAILED, TRY_AGAIN, USAGE


class PromotionError(Exception):
    """Base of every error about a promotion; the message says what to do."""

    exit_code = FAILED


class PromotionInvalid(PromotionError):
    """What is asked makes no sense: nothing would change, or what is to be replaced is not there."""

    exit_code = USAGE


class PromotionRefused(PromotionError):
    """The models may not judge: no policy fits them, or nobody has seen what they would decide."""


class RolloutIncomplete(PromotionError):
    """The models are promoted, and some scanner does not judge with them yet."""

    exit_code = TRY_AGAIN
