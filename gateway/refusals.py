"""Requests that are answered with an error instead of a decision, each with one code, one status and a remedy."""

from enum import StrEnum


class RefusalCode(StrEnum):
    """The stable word by which a program tells refusals apart."""

    BAD_REQUEST = "bad_request"
    HEAD_TOO_LARGE = "head_too_large"
    UNKNOWN_KEY = "unknown_key"
    NETWORK_NOT_ALLOWED = "network_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    MALFORMED_MULTIPART = "malformed_multipart"
    NO_FILE = "no_file"
    SEVERAL_FILES = "several_files"
    NOT_AN_IMAGE = "not_an_image"
    UNKNOWN_SCAN = "unknown_scan"
    ADMIN_OFF = "admin_off"
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105  # a word, no secret
    INVALID_OVERRIDE = "invalid_override"
    UNKNOWN_OVERRIDE = "unknown_override"
    KAFKA_AWAY = "kafka_away"
    UNKNOWN_LIST = "unknown_list"
    FETCHING_OFF = "fetching_off"
    URL_NOT_ALLOWED = "url_not_allowed"
    URL_NOT_FETCHED = "url_not_fetched"
    TOO_MANY_FETCHES = "too_many_fetches"
    RATE_LIMITED = "rate_limited"
    DRAINING = "draining"
    FULL = "full"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INTERNAL = "internal"


STATUS: dict[RefusalCode, int] = {
    RefusalCode.BAD_REQUEST: 400,
    RefusalCode.HEAD_TOO_LARGE: 431,
    RefusalCode.UNKNOWN_KEY: 401,
    RefusalCode.NETWORK_NOT_ALLOWED: 403,
    RefusalCode.BODY_TOO_LARGE: 413,
    RefusalCode.BODY_TOO_SLOW: 408,
    RefusalCode.MALFORMED_MULTIPART: 400,
    RefusalCode.NO_FILE: 400,
    RefusalCode.SEVERAL_FILES: 400,
    RefusalCode.NOT_AN_IMAGE: 422,
    RefusalCode.UNKNOWN_SCAN: 404,
    RefusalCode.ADMIN_OFF: 403,
    RefusalCode.UNKNOWN_TOKEN: 401,
    RefusalCode.INVALID_OVERRIDE: 400,
    RefusalCode.UNKNOWN_OVERRIDE: 404,
    RefusalCode.KAFKA_AWAY: 503,
    RefusalCode.UNKNOWN_LIST: 404,
    RefusalCode.FETCHING_OFF: 403,
    RefusalCode.URL_NOT_ALLOWED: 400,
    RefusalCode.URL_NOT_FETCHED: 422,
    RefusalCode.TOO_MANY_FETCHES: 429,
    RefusalCode.RATE_LIMITED: 429,
    RefusalCode.DRAINING: 503,
    RefusalCode.FULL: 503,
    RefusalCode.NOT_FOUND: 404,
    RefusalCode.METHOD_NOT_ALLOWED: 405,
    RefusalCode.INTERNAL: 503,
}
"""The HTTP status of each code. Our own mistakes are 503 too: the client may try again, and should."""


class Refusal(Exception):
    """A request that gets no decision.

    `field` names the part of the request that is at fault ("" when none is), `remedy` says what to do, `retry_after_s`
    when to try again, where that is of use (429 and 503).
    """

    def __init__(
        self, code: RefusalCode, message: str, *, field: str = "", remedy: str = "", retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.remedy = remedy
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return STATUS[self.code]


class ClientGone(Exception):
    """The client hung up before its whole body was here: there is nobody to answer and nothing to judge."""
