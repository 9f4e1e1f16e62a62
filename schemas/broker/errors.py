"""What can go wrong between us and Kafka.

::

    BrokerError
    ├── BrokerUnavailable   no broker answered in the time given: try again later
    ├── BrokerRefused       credentials, certificates or ACLs: an admin must act
    │   └── InstanceTaken   another member of the group goes by our name
    ├── PublishRefused      this message can never be published (too large, no such topic)
    ├── AccessRefused       users or rights that the cluster does not take, or has no use for
    ├── SearchTooLong       a record was not found within the time or the bytes allowed
    └── TopicsNotReady      topics are missing or wrong: run `fediwarden topics apply`
"""

import ssl

from aiokafka import errors as kafka

_REFUSALS: tuple[type[Exception], ...] = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
    kafka.SaslAuthenticationFailed,
    ssl.SSLError,
)
_UNPUBLISHABLE: tuple[type[Exception], ...] = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.InvalidTopicError,
)


class BrokerError(Exception):
    """Base of every error of `schemas.broker`."""


class BrokerUnavailable(BrokerError):
    """No broker answered in the time given."""


class BrokerRefused(BrokerError):
    """The cluster refuses us: credentials, certificates or ACLs."""


class InstanceTaken(BrokerRefused):
    """Two members of a group bear one static name (``group.instance.id``); this one gives way."""


class PublishRefused(BrokerError):
    """The message can never be published; retrying is pointless."""


class AccessRefused(BrokerError):
    """Users or rights cannot be changed on this cluster; the message says why, and what to do."""


class SearchTooLong(BrokerError):
    """A record was neither found, nor known not to be there, within the time or the bytes that were allowed."""


class TopicsNotReady(BrokerError):
    """Topics are missing or wrong; the message names the command that mends it."""


def is_refusal(error: BaseException) -> bool:
    """Whether an admin must act before retrying helps."""
    return isinstance(error, _REFUSALS)


def is_unpublishable(error: BaseException) -> bool:
    """Whether the message itself is at fault."""
    return isinstance(error, _UNPUBLISHABLE)


def unavailable(bootstrap_servers: str, error: BaseException) -> BrokerError:
    """The typed error for a failed connection, with the remedy.

    aiokafka reports a refused handshake at first connection as "unable to bootstrap" and logs the cause: only a
    refusal of a running connection can be told from an absent broker here.
    """
    if is_refusal(error):
        return BrokerRefused(
            f"Kafka at {bootstrap_servers} refuses us ({type(error).__name__}: {error});"
            " check kafka.security_protocol, the sasl_* and ssl_* settings and the ACLs"
        )
    return BrokerUnavailable(
        f"no Kafka at {bootstrap_servers or '(kafka.bootstrap_servers is empty)'} ({type(error).__name__}: {error});"
        " is it running, is kafka.bootstrap_servers right, does it take our credentials (kafka.sasl_*, kafka.ssl_*)?"
    )
