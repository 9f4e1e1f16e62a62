"""Our Kafka client, the only importer of aiokafka: producer, readers with and without a group, topics, users."""

from schemas.broker.access import EVERYBODY, Right, read_rights, set_rights
from schemas.broker.admin import TopicChange, apply_topics, check_topics, diff_topics
from schemas.broker.assigned import AssignedReader
from schemas.broker.consumer import Consumer
from schemas.broker.credentials import list_users, remove_user, set_password
from schemas.broker.erasing import Bounds, Partition, PartitionLogs, open_logs
from schemas.broker.errors import (
    AccessRefused,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    InstanceTaken,
    PublishRefused,
    SearchTooLong,
    TopicsNotReady,
)
from schemas.broker.finding import Span, find_newest
from schemas.broker.history import read_history
from schemas.broker.producer import Producer, Published
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.broker.tail import Tail
from schemas.broker.windows import Window, find_windows, start_group

__all__ = [
    "EVERYBODY",
    "AccessRefused",
    "AssignedReader",
    "Bounds",
    "BrokerError",
    "BrokerRefused",
    "BrokerSettings",
    "BrokerUnavailable",
    "Consumer",
    "InstanceTaken",
    "Partition",
    "PartitionLogs",
    "Producer",
    "PublishRefused",
    "Published",
    "Received",
    "Right",
    "SearchTooLong",
    "Span",
    "Tail",
    "TopicChange",
    "TopicsNotReady",
    "Window",
    "apply_topics",
    "check_topics",
    "diff_topics",
    "find_newest",
    "find_windows",
    "list_users",
    "open_logs",
    "read_history",
    "read_rights",
    "remove_user",
    "set_password",
    "set_rights",
    "start_group",
]
