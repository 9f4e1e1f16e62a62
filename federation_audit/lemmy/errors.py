"""Why Lemmy's database gives no answer, each with its remedy."""


class LemmyDatabaseError(Exception):
    """Lemmy's database cannot be asked; the message names the tenant's setting or the statement that helps."""


class DatabaseAway(LemmyDatabaseError):
    """It does not answer now: not there, too slow, or being changed. Asking again may help."""


class NotLemmy(LemmyDatabaseError):
    """It holds no tables that we know as Lemmy's."""


class GrantMissing(LemmyDatabaseError):
    """Our role may not read what is needed. `statements` are the GRANTs that help, to be run by the tables' owner;
    () where it is not a column's."""

    def __init__(self, message: str, statements: tuple[str, ...]) -> None:
        remedy = f"; run as the owner of the tables: {' '.join(statements)}" if statements else ""
        super().__init__(message + remedy)
        self.statements = statements
