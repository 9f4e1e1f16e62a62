"""What can go wrong with an account. Each message is a sentence for the person who asked."""


class AccountError(Exception):
    """An account cannot be made, changed or used as asked; the message names the field and the remedy."""

    field: str = ""


class NameRefused(AccountError):
    """The name is taken, or has characters that names do not have."""

    field = "name"


class UserUnknown(AccountError):
    """No user has this name."""

    field = "name"


class LastAdmin(AccountError):
    """Without this admin nobody could manage users."""

    field = "role"


class PasswordRefused(AccountError):
    """The password is too easy to guess, or too long."""

    field = "password"


class PasswordWrong(AccountError):
    """Name and password do not belong together."""

    field = "password"


class TooManyAttempts(AccountError):
    """Too many wrong passwords for this account or from this network; `retry_s` says when to try again."""

    def __init__(self, message: str, *, retry_s: int) -> None:
        super().__init__(message)
        self.retry_s = retry_s
