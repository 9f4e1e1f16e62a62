"""What can keep users and certificates from being made. Each message says what to do."""

import os


class AccessError(Exception):
    """Base of everything this package raises; the text is meant for the person at the terminal."""

    exit_code = os.EX_CONFIG


class UserRefused(AccessError):
    """A user that is there already, or is not, or whose name will not do."""


class CertificatesRefused(AccessError):
    """Certificates that cannot be made, or must not be: the message says why."""
