"""Files become frames and scores on this machine, as the pipeline makes them: sandboxed workers, JPEGs, models."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gateway.frames.frame import FrameSet, Unreadable
from gateway.frames.pool import FramePool
from gateway.frames.settings import FrameSettings
from scanner.concepts import PolicyConcepts, embed_concepts
from scanner.decoding import prepare_frame
from scanner.models.model import Model, is_embedder
from scanner.policy import MediaKind, Policy, media_kind
from scanner.scoring import FrameScores, embed_frames, score_frames


@dataclass(frozen=True, slots=True)
class Scored:
    """One file: what kind of media it is, and the scores of its frames. Where it cannot be judged, `error` says why."""

    path: Path
    kind: MediaKind = MediaKind.IMAGE
    frames: tuple[FrameScores, ...] = ()
    at_ms: tuple[int, ...] = ()
    error: str = ""


class ScoringFailed(Exception):
    """No file can be turned into frames on this machine; the message says why."""


async def score_files(
    paths: Iterable[Path], settings: FrameSettings, models: Sequence[Model], policy: Policy
) -> AsyncIterator[Scored]:
    """Score files by `models` and the policy's concepts, in their order; frames of the next ones are made meanwhile.

    Raises `ScoringFailed`, or a `ModelError` for concepts that no model can give.
    """
    embedders = {model.name: model for model in models if is_embedder(model)}
    concepts = await asyncio.to_thread(embed_concepts, embedders, policy.concepts)
    pool = FramePool(settings)
    try:
        await pool.start()
    except RuntimeError as error:
        raise ScoringFailed(str(error)) from error
    inference = ThreadPoolExecutor(1)
    ahead: deque[tuple[Path, asyncio.Task[FrameSet | str]]] = deque()
    left = iter(paths)
    try:
        while True:
            for path in islice(left, 2 * settings.workers - len(ahead)):
                ahead.append((path, asyncio.create_task(_extract(pool, path))))
            if not ahead:
                return
            path, extracting = ahead.popleft()
            found = await extracting
            if isinstance(found, str):
                yield Scored(path, error=found)
                continue
            scores = await asyncio.get_running_loop().run_in_executor(inference, _score, found, models, concepts)
            kind = media_kind(found.media_type, len(found.frames))
            yield Scored(path, kind, scores, tuple(frame.at_ms for frame in found.frames))
    finally:
        for _, extracting in ahead:
            extracting.cancel()
        await asyncio.gather(*(extracting for _, extracting in ahead), return_exceptions=True)
        inference.shutdown(wait=False)
        await pool.stop()


async def _extract(pool: FramePool, path: Path) -> FrameSet | str:
    try:
        fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return str(error.strerror or error)
    try:
        return await pool.extract(fd, os.fstat(fd).st_size)
    except Unreadable as error:
        return str(error)
    finally:
        os.close(fd)


def _score(found: FrameSet, models: Sequence[Model], concepts: PolicyConcepts) -> tuple[FrameScores, ...]:
    frames = [prepare_frame(frame.jpeg, index, models) for index, frame in enumerate(found.frames)]
    return tuple(concepts.score(score_frames(models, frames), embed_frames(models, frames)))
