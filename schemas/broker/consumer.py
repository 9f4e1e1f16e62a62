"""Consuming in a group: offsets are committed only when everything before them is done."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.errors import BrokerUnavailable, InstanceTaken, is_refusal, unavailable
from schemas.broker.offsets import OffsetTracker
from schemas.broker.reading import Reader
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.codec import NO_VIEWS, Views
from schemas.topics import TopicSpec

log = structlog.get_logger("schemas.broker")

_COMMIT_EVERY_S = 0.5
_START_TIMEOUT_S = 60.0
_RETRY_S = 0.5
_STOP_WITHIN_S = 5.0
_NEVER_MS = 2**31 - 1
_HEARTBEAT_AT_MOST_S = 1.0
_HEARTBEATS_A_SESSION = 3
_NO_PARTITIONS_WAIT_S = 0.1
_EXPELLED_TIMES = 3
_EXPELLED_WITHIN_S = 60.0
_ONE_EXPULSION_S = 2.0
_STUCK_POLLS = 5
_STUCK_S = 3.0


class Consumer:
    """A member of a consumer group. Also an async context manager.

    What `poll` handed out is told `done` in any order; the offset that is committed is always the contiguous front.
    When partitions are taken away, nothing new is handed out, work in hand gets `drain_s` seconds to finish, and what
    is done is committed; the rest is read again by the partition's next owner.

    Kafka gives a member's partitions to others when it has not heard of it for `session_timeout_s` seconds, or when it
    leaves. `instance` is Kafka's static membership (``group.instance.id``): such a member does not leave at `stop`, and
    whoever comes back under the same name within the session time-out has its partitions at once, without a rebalance.
    The name must be this member's own: of two that bear it, the one that came first ends with `InstanceTaken`.
    `views` are what to read records as, in the place of whole messages (`schemas.codec.Views`).
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topics: Sequence[TopicSpec],
        *,
        group: str,
        client_id: str,
        drain_s: float = 3.0,
        session_timeout_s: float = 10.0,
        instance: str | None = None,
        views: Views = NO_VIEWS,
    ) -> None:
        self._settings = settings
        self._topics = {topic.full_name(settings.topic_prefix): topic for topic in topics}
        self._group = settings.topic_prefix + group
        self._client_id = client_id
        self._drain_s = drain_s
        self._session_timeout_s = session_timeout_s
        self._instance = instance
        self._views = views
        self._expelled_at: deque[float] = deque(maxlen=_EXPELLED_TIMES)
        self._told_by_poll = False
        self._impersonated = False
        self._odd_at: list[float] = []
        self._client: AIOKafkaConsumer | None = None
        self._reader: Reader | None = None
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._epoch = 0
        self._may_hand_out = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._committer: asyncio.Task[None] | None = None
        self._committing = asyncio.Lock()

    async def start(self) -> None:
        """Join the group. Raises `BrokerUnavailable` or `BrokerRefused`."""
        try:
            client = AIOKafkaConsumer(
                group_id=self._group,
                client_id=self._client_id,
                enable_auto_commit=False,
                auto_offset_reset="none",  # the reader finds where to begin: see schemas.broker.positions
                group_instance_id=self._instance,
                session_timeout_ms=int(self._session_timeout_s * 1000),
                heartbeat_interval_ms=int(
                    min(_HEARTBEAT_AT_MOST_S, self._session_timeout_s / _HEARTBEATS_A_SESSION) * 1000
                ),
                # Full hands are no hang: whoever is not polled for long must stay in the group, for aiokafka does not
                # let it in again before the next poll.
                max_poll_interval_ms=_NEVER_MS,
                rebalance_timeout_ms=int((self._drain_s + self._session_timeout_s) * 1000),
                metadata_max_age_ms=10_000,
                request_timeout_ms=15_000,
                **self._settings.client_options(),
            )
        except OSError as error:
            raise unavailable(self._settings.bootstrap_servers, error) from error
        client.subscribe(list(self._topics), listener=_Rebalances(self))
        self._client = client
        self._reader = Reader(client, self._topics, epoch=lambda: self._epoch, views=self._views)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await client.start()
        except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
            self._client = None
            await close_client(client, _STOP_WITHIN_S)
            raise unavailable(self._settings.bootstrap_servers, error) from error
        self._committer = asyncio.create_task(self._commit_often(), name="offset-commits")

    async def stop(self) -> None:
        """Commit what is done and leave the group (a member with an `instance` stays in it until its session ends).

        What was handed out and is not done is read again by the partitions' next owner.
        """
        client, self._client = self._client, None
        if client is None:
            return
        self._may_hand_out.clear()
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # without Kafka, aiokafka would look for a coordinator for ever
            async with asyncio.timeout(_STOP_WITHIN_S):
                await self._commit(client)
        self._forget()
        await close_client(client, _STOP_WITHIN_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def poll(self, *, max_messages: int, timeout_s: float, topic: TopicSpec | None = None) -> list[Received]:
        """At most `max_messages` records, of `topic` alone when it is named; [] when `timeout_s` passes without one.

        One poll for each topic may run at a time; partitions of `topic` that come while it waits are seen by the next.
        Raises `BrokerRefused` when the cluster refuses us, `InstanceTaken` when another goes by our name,
        `BrokerUnavailable` when aiokafka is stuck in an error and only a new process helps; outages are waited out.
        """
        client, reader = self._client, self._reader
        if client is None or reader is None:
            await asyncio.sleep(timeout_s)  # a loop around a stopped consumer must not starve the event loop
            return []
        if self._impersonated:
            raise InstanceTaken(
                f"another member of group {self._group} goes by the name {self._instance!r}, which was ours: "
                "give each scanner a scanner.instance of its own, or none"
            )
        try:
            async with asyncio.timeout(timeout_s):
                await self._may_hand_out.wait()
        except TimeoutError:
            return []
        try:
            partitions = self._partitions_of(client, topic)
            if topic is not None and not partitions:
                await asyncio.sleep(min(timeout_s, _NO_PARTITIONS_WAIT_S))
                return []
            records = await reader.read(partitions, timeout_s=timeout_s, most=max_messages)
            self._odd_at.clear()
            return self._hand_out(records)
        except (kafka.ConsumerStoppedError, kafka.IllegalStateError):
            await asyncio.sleep(0)
            return []  # stopped, or reassigned under our feet: the next poll sees the new state
        except kafka.KafkaError as error:
            if is_refusal(error):
                raise unavailable(self._settings.bootstrap_servers, error) from error
            if type(error) is kafka.KafkaError:  # what aiokafka makes of a coordinator's answer that it does not know
                self._note_expelled(by_poll=True)
                self._note_odd(error)
            log.warning("poll failed, trying again", group=self._group, error=repr(error))
            await asyncio.sleep(_RETRY_S)
            return []

    def done(self, received: Received) -> None:
        """Note that `received` is processed. Ignored when its partition has been taken away since."""
        if received.epoch != self._epoch:
            return
        tracker = self._trackers.get(self._partition(received))
        if tracker is not None:
            tracker.finish(received.offset)
            if not any(tracker.unfinished for tracker in self._trackers.values()):
                self._idle.set()

    def lag(self) -> dict[tuple[str, int], int]:
        """Records of each assigned (topic, partition) that are not yet done, as far as the last fetch knows."""
        client = self._client
        if client is None:
            return {}
        lags = {}
        for tp in client.assignment():
            end = client.highwater(tp)
            tracker = self._trackers.get(tp)
            front = tracker.front if tracker is not None else None
            if end is not None:
                lags[(self._topics[tp.topic].name, tp.partition)] = 0 if front is None else max(0, end - front)
        return lags

    @property
    def assigned(self) -> int:
        """How many partitions this member has now."""
        return 0 if self._client is None else len(self._client.assignment())

    def _partition(self, received: Received) -> TopicPartition:
        return TopicPartition(received.topic.full_name(self._settings.topic_prefix), received.partition)

    def _partitions_of(self, client: AIOKafkaConsumer, topic: TopicSpec | None) -> list[TopicPartition]:
        """Our partitions of `topic`; [] (all, for the reader) for None."""
        if topic is None:
            return []
        name = topic.full_name(self._settings.topic_prefix)
        return [tp for tp in client.assignment() if tp.topic == name]

    def _hand_out(self, records: list[Received]) -> list[Received]:
        if not self._may_hand_out.is_set():
            return []  # being taken away: the next owner reads these again
        records = [received for received in records if received.epoch == self._epoch]
        for received in records:
            self._track(received)
        if records:
            self._idle.clear()
        return records

    def _track(self, received: Received) -> None:
        tp = self._partition(received)
        try:
            self._trackers.setdefault(tp, OffsetTracker()).hand_out(received.offset)
        except ValueError as error:
            # The log was cut back (an unclean leader election): what is left of it is read anew.
            log.warning("partition went back", topic=tp.topic, partition=tp.partition, error=str(error))
            self._trackers[tp] = OffsetTracker()
            self._trackers[tp].hand_out(received.offset)

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY_S)
            if self._client is not None:
                await self._commit(self._client)

    async def _commit(self, client: AIOKafkaConsumer) -> None:
        async with self._committing:  # an older commit that succeeds after a newer one would set offsets back
            await self._commit_fronts(client)

    async def _commit_fronts(self, client: AIOKafkaConsumer) -> None:
        fronts = {tp: tracker.committable for tp, tracker in self._trackers.items() if tracker.committable is not None}
        if not fronts:
            return
        epoch = self._epoch
        try:
            await client.commit(fronts)
        except (kafka.CommitFailedError, kafka.IllegalStateError) as error:
            log.info("offsets not committed: the partitions have another owner now", error=repr(error))
        except (kafka.KafkaError, OSError) as error:
            log.warning("commit failed, trying again", group=self._group, error=repr(error))
        else:
            if epoch == self._epoch:
                for tp, offset in fronts.items():
                    self._trackers[tp].note_committed(offset)

    def _forget(self) -> None:
        self._epoch += 1
        self._trackers.clear()
        if self._reader is not None:
            self._reader.forget()
        self._idle.set()

    def _note_expelled(self, *, by_poll: bool) -> None:
        """Note that the group does not know us any more, and whether that is another member's doing.

        When two bear one `instance`, the group forgets the one at each join of the other. Once may be our own fault
        (asleep for longer than the session), thrice within a minute is not. aiokafka names no instance in its
        heartbeats, so that the broker's own word for this (FENCED_INSTANCE_ID) does not reach us. Of one event it tells
        us up to three times: by one revocation, and by two polls that fail. Two revocations are two events, however
        close (a heartbeat apart): the newer, thrown out a moment after the older each time, must not be first to three.
        """
        now = time.monotonic()
        is_recent = bool(self._expelled_at) and now - self._expelled_at[-1] < _ONE_EXPULSION_S
        if is_recent and (by_poll or self._told_by_poll):
            self._told_by_poll &= by_poll  # a revocation that a poll foretold is spent
            return
        self._told_by_poll = by_poll
        self._expelled_at.append(now)
        often = len(self._expelled_at) == _EXPELLED_TIMES
        if self._instance is not None and often and self._expelled_at[-1] - self._expelled_at[0] < _EXPELLED_WITHIN_S:
            self._impersonated = True

    def _note_odd(self, error: kafka.KafkaError) -> None:
        """Raise `BrokerUnavailable` at the last of many: aiokafka repeats a failed heartbeat for ever."""
        self._odd_at.append(time.monotonic())
        if len(self._odd_at) >= _STUCK_POLLS and self._odd_at[-1] - self._odd_at[0] >= _STUCK_S:
            raise BrokerUnavailable(f"every poll of group {self._group} fails ({error!r}): start again") from error

    async def revoke(self, *, had_partitions: bool) -> None:
        """Called by aiokafka before a rebalance: finish, commit, let go."""
        client = self._client
        # aiokafka forgets its generation when the group does not know it any more; a rebalance leaves it in place.
        if had_partitions and client is not None and client._coordinator.generation < 0:
            self._note_expelled(by_poll=False)
        self._may_hand_out.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await self._idle.wait()
        if client is not None:
            await self._commit(client)
        self._forget()
        if self._impersonated and client is not None:
            client._subscription.abort_waiters(kafka.KafkaError("the group has another member of our name"))
            await asyncio.Event().wait()  # to join again would throw out the other one; `poll` ends this process

    def assign(self) -> None:
        """Called by aiokafka after a rebalance."""
        if self._reader is not None:
            self._reader.forget()
        self._may_hand_out.set()


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            log.info("partitions revoked", count=len(revoked))
        await self._consumer.revoke(had_partitions=bool(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("partitions assigned", count=len(assigned))
        self._consumer.assign()
