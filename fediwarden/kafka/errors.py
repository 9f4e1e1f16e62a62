"""What can keep the embedded Kafka from starting. Every message says what is wrong and what to do about it."""


class KafkaError(Exception):
    """Base of everything this package raises; the text is meant for the person at the terminal."""


class JarsUnavailable(KafkaError):
    """The jars could be fetched neither from a repository nor from the local Maven cache."""


class JarRefused(KafkaError):
    """A jar does not match the lock. It is not run."""


class JavaMissing(KafkaError):
    """No Java runtime that Kafka could run on."""


class PortTaken(KafkaError):
    """A port that is needed is held by another process."""


class DiskFull(KafkaError):
    """Too little room on the file system that holds a directory of ours."""


class NodeFailed(KafkaError):
    """A Kafka node ended, or did not answer in time; the message carries the end of its log."""
