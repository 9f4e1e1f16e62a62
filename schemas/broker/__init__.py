"""Our Kafka client: the one place that imports aiokafka. Producer, group consumer, tail, and topic administration."""

from schemas.broker.admin import TopicChange, apply_topics, check_topics, diff_topics
from schemas.broker.consumer import Consumer
from schemas.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable, PublishRefused, TopicsNotReady
from schemas.broker.producer import Producer, Published
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.broker.tail import Tail

__all__ = [
    "BrokerError",
    "BrokerRefused",
    "BrokerSettings",
    "BrokerUnavailable",
    "Consumer",
    "Producer",
    "PublishRefused",
    "Published",
    "Received",
    "Tail",
    "TopicChange",
    "TopicsNotReady",
    "apply_topics",
    "check_topics",
    "diff_topics",
]
