"""The jars of Apache Kafka: fetched from Maven repositories through jgo, checked against the committed lock.

`kafka.lock.json` names every jar by its Maven coordinate, file name, size and sha256. Because the lock is complete,
fetching walks no POMs: jgo is asked for each file by its coordinate. ``python -m fediwarden.kafka.jars lock``
resolves the dependencies anew and writes the lock.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock

import structlog

from fediwarden.kafka.errors import JarRefused, JarsUnavailable
from fediwarden.kafka.preflight import check_disk, disk_faults_named
from fediwarden.kafka.repositories import list_repositories, without_credentials

log = structlog.get_logger("fediwarden.kafka.jars")

KAFKA_VERSION = "4.4.0"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
"""Joins SLF4J 1.7, which Kafka logs through, to Log4j; the Kafka distribution ships it, but no POM asks for it."""

LOCK_FILE = Path(__file__).with_name("kafka.lock.json")
CACHE_REMEDY = "set another cache directory: FEDIWARDEN_CACHE_DIR"

_ATTEMPTS = 3
_PARALLEL_DOWNLOADS = 6
_CONNECT_AND_READ_TIMEOUT_S = 15
_ABANDONED_AFTER_S = 3600

OLDEST_KAFKA = 4
"""Of an installation named by KAFKA_HOME: Kafka 3 logs through another library and still has ZooKeeper's settings."""

_KAFKA_JAR = re.compile(r"kafka_\d+\.\d+-(?P<major>\d+)\..*\.jar")

_WAYS_OUT = (
    "Ways out: set KAFKA_HOME to an Apache Kafka 4 you have unpacked; use a Kafka that runs elsewhere "
    "(FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS=host:9092); or name a repository mirror that this machine reaches "
    "in ~/.m2/settings.xml (<mirror> of central) or ~/.config/jgo.conf ([repositories])."
)

Report = Callable[[int, int], None]
"""Told, from any thread, the bytes that are there and the bytes there will be. What it raises ends the fetching."""


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One jar of the lock. `coordinate` is Maven's ``group:artifact:version``; `size` is in bytes."""

    coordinate: str
    file: str
    sha256: str
    size: int


def read_lock(path: Path = LOCK_FILE) -> tuple[LockedJar, ...]:
    """The locked jars, in the order of the class path. Raises `JarRefused` when the lock cannot be read."""
    try:
        entries = json.loads(path.read_bytes())["jars"]
        return tuple(LockedJar(**entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise JarRefused(f"The jar lock {path} cannot be read ({fault}). Reinstall fediwarden.") from fault


def find_missing(directory: Path, jars: Sequence[LockedJar]) -> tuple[LockedJar, ...]:
    """The jars of the lock that are not in `directory` yet (by name alone; see `verify_jars`)."""
    return tuple(jar for jar in jars if not (directory / jar.file).is_file())


def verify_jars(directory: Path, jars: Sequence[LockedJar]) -> None:
    """Compare every jar's sha256 with the lock. Raises `JarRefused`, which names the ones that differ."""
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(lambda jar: _digest_file(directory / jar.file), jars))
    wrong = [str(directory / jar.file) for jar, digest in zip(jars, digests, strict=True) if digest != jar.sha256]
    if wrong:
        raise JarRefused(
            f"Not what the lock names, and therefore not run: {', '.join(wrong)}. "
            "Delete the file, and the next start fetches it again."
        )


def _digest_file(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def prepare_jars(cache_dir: Path, *, home: Path | None = None, report: Report | None = None) -> tuple[Path, ...]:
    """The class path to run Kafka with: fetched where missing, and checked against the lock, every time.

    With `home` (an installation's directory, KAFKA_HOME) the jars of its ``libs`` folder are taken as they are:
    they are that installation's owner's to vouch for. Raises `JarsUnavailable`, `JarRefused` or `DiskFull`.
    """
    if home is not None:
        return _take_installed(home)
    directory = cache_dir / "kafka" / KAFKA_VERSION
    jars = read_lock()
    missing = find_missing(directory, jars)
    if missing:
        fetch_jars(directory, missing, report=report)
    verify_jars(directory, jars)
    return tuple(directory / jar.file for jar in jars)


def _take_installed(home: Path) -> tuple[Path, ...]:
    libs = tuple(sorted((home / "libs").glob("*.jar")))
    version = next((found for jar in libs if (found := _KAFKA_JAR.fullmatch(jar.name))), None)
    if version is None:
        raise JarsUnavailable(f"KAFKA_HOME is {home}, but {home / 'libs'} holds no Apache Kafka. {_WAYS_OUT}")
    if int(version["major"]) < OLDEST_KAFKA:
        raise JarsUnavailable(f"KAFKA_HOME is {home}, and that is {version[0]}: too old. {_WAYS_OUT}")
    log.info("kafka_home_used", home=str(home), kafka=version[0], jars=len(libs), checked=False)
    return libs


def fetch_jars(
    directory: Path,
    jars: Sequence[LockedJar],
    *,
    report: Report | None = None,
    repositories: Sequence[str] | None = None,
) -> None:
    """Download `jars` into `directory`, from `repositories` in order (`list_repositories` by default).

    A file gets its final name only after its sha256 matched, so an interrupted download leaves nothing that could
    be taken for a jar. Raises `JarsUnavailable` (which names the ways out), `JarRefused` or `DiskFull`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    check_disk(directory, min_free_bytes=2 * sum(jar.size for jar in jars), remedy=CACHE_REMEDY)
    stop = Event()
    _clear_abandoned(directory)
    with (
        disk_faults_named(directory, remedy=CACHE_REMEDY),
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as staging,
        ThreadPoolExecutor(max_workers=_PARALLEL_DOWNLOADS) as threads,
    ):
        source = _Source(Path(staging), sum(jar.size for jar in jars), report, stop, repositories)
        try:
            for _ in threads.map(lambda jar: _fetch_one(source, jar, directory), jars):
                pass
        except BaseException:
            stop.set()  # the threads of the pool look at it; leaving the block waits for them
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _clear_abandoned(directory: Path) -> None:
    """Remove what a download that was killed left behind, unless it is so recent that it may still be going on."""
    for leftover in directory.glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


class _Source:
    """Where jars come from: the local Maven repository when it has the right file, else the remote ones in order."""

    def __init__(
        self,
        staging: Path,
        total: int,
        report: Report | None,
        stop: Event,
        repositories: Sequence[str] | None,
    ) -> None:
        from jgo.config import GlobalSettings

        settings = GlobalSettings.load()
        self.local: Path = settings.repo_cache
        self.remotes = list(repositories or list_repositories(settings.repositories))
        self.staging = staging
        self._done = 0
        self._total = total
        self._report = report
        self._stop = stop
        self._lock = Lock()

    def advance(self, count: int) -> None:
        """Report `count` more bytes (fewer, when a spoiled download starts over), unless fetching has been ended."""
        if self._stop.is_set():
            raise _StoppedError
        with self._lock:
            self._done += count
            if self._report:
                self._report(self._done, self._total)

    def download(self, remote: str, coordinate: str) -> Path:
        """Fetch one file from one repository into the staging folder. Raises what jgo and requests raise."""
        from jgo.maven import MavenContext, PythonResolver

        received = 0

        @contextmanager
        def follow(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            def count(chunk: int) -> None:
                nonlocal received
                received += chunk
                self.advance(chunk)

            yield count

        context = MavenContext(
            resolver=PythonResolver(progress_callback=follow),
            repo_cache=self.staging,
            remote_repos={"repository": remote},
            timeout=_CONNECT_AND_READ_TIMEOUT_S,
        )
        artifact = context.create_dependency(coordinate).artifact
        (self.staging / artifact.component.path_prefix / artifact.filename).unlink(missing_ok=True)
        try:
            got = context.resolver.download(artifact)
            assert got is not None
            return got
        except BaseException:
            with self._lock:
                self._done -= received
            raise


class _StoppedError(Exception):
    """Another download failed, or the user interrupted: this one is not needed any more."""


def _fetch_one(source: _Source, jar: LockedJar, directory: Path) -> None:
    target = directory / jar.file
    local = source.local / _repository_path(jar)
    if _digest_file(local) == jar.sha256:
        source.advance(jar.size)
        _put_in_place(Path(shutil.copyfile(local, source.staging / jar.file)), target)
        return
    faults: dict[str, str] = {}
    refused = False
    for remote in source.remotes * _ATTEMPTS:
        source.advance(0)  # raises when the user has had enough
        try:
            got = source.download(remote, jar.coordinate)
        except (OSError, RuntimeError) as fault:  # requests' exceptions are OSErrors, jgo's "not found" RuntimeErrors
            if getattr(fault, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            faults[without_credentials(remote)] = _describe(fault)
            continue
        digest = _digest_file(got)
        if digest == jar.sha256:
            _put_in_place(got, target)
            return
        refused = True
        source.advance(-got.stat().st_size)
        faults[without_credentials(remote)] = f"sha256 is {digest}, the lock says {jar.sha256}"
    reasons = "; ".join(f"{remote}: {fault}" for remote, fault in faults.items())
    if refused:
        raise JarRefused(f"{jar.file} is not what the lock names, and is not run ({reasons}). {_WAYS_OUT}")
    raise JarsUnavailable(f"Cannot fetch {jar.file} of Apache Kafka {KAFKA_VERSION} ({reasons}). {_WAYS_OUT}")


def _put_in_place(got: Path, target: Path) -> None:
    """Give a verified file its final name. Synced first: a power cut must not leave the name without the bytes."""
    with got.open("rb") as stream:
        os.fsync(stream.fileno())
    got.replace(target)


def _repository_path(jar: LockedJar) -> Path:
    group, artifact, version = jar.coordinate.split(":")
    return Path(*group.split("."), artifact, version, jar.file)


def _describe(fault: BaseException) -> str:
    if isinstance(fault, RuntimeError):
        return "not there"
    return type(fault).__name__


def make_lock(staging: Path) -> tuple[LockedJar, ...]:
    """Resolve Kafka's dependencies as Maven would, download every jar into `staging`, and say what they are.

    Kafka is resolved alone, because a second coordinate beside it changes the versions of its dependencies; the
    logging binding is added in the version of the Log4j that Kafka asked for.
    """
    import jgo
    from jgo.maven import MavenContext, PythonResolver

    artifacts = list(jgo.resolve(KAFKA))
    log4j = next(found for found in artifacts if found.artifactId == "log4j-core")
    context = MavenContext(
        resolver=PythonResolver(), repo_cache=staging, remote_repos={"repository": list_repositories()[0]}
    )
    coordinates = [f"{found.groupId}:{found.artifactId}:{found.version}" for found in artifacts]
    coordinates.append(f"{LOG_BINDING}:{log4j.version}")
    jars = []
    for coordinate in coordinates:
        path = Path(context.create_dependency(coordinate).artifact.resolve())
        digest = _digest_file(path)
        assert digest is not None
        jars.append(LockedJar(coordinate, path.name, digest, path.stat().st_size))
    return tuple(jars)


def write_lock(jars: Sequence[LockedJar], path: Path = LOCK_FILE) -> None:
    """Write the lock that `read_lock` reads."""
    content = {"kafka": KAFKA_VERSION, "jars": [asdict(jar) for jar in jars]}
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python -m fediwarden.kafka.jars lock")
    with tempfile.TemporaryDirectory() as scratch:
        write_lock(make_lock(Path(scratch)))
