"""Why something was not written down. Each message is a sentence for the person who tried."""


class NotDecided(Exception):
    """Nothing was written; `field` is the form's field that it is about, '' for none."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class DecidedMeanwhile(NotDecided):
    """Somebody else decided in the meantime: look at that first."""


class NotThere(NotDecided):
    """What it is about is not there, or not any more."""
