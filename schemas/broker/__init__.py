"""Our Kafka client, the only importer of aiokafka: producer, readers with and without a group, topic administration."""

from schemas.broker.admin import TopicChange, apply_topics, check_topics, diff_topics
from schemas.broker.assigned import AssignedReader
from schemas.broker.consumer import Consumer
from schemas.broker.erasing import Bounds, Partition, PartitionLogs, open_logs
from schemas.broker.errors import (
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
    "open_logs",
    "read_history",
    "start_group",
]
