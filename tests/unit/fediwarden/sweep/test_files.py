"""The same promises of every kind of store, each a real one."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("sshfs")
pytest.importorskip("moto")

from fediwarden.sweep.errors import (
    ObjectChanged,
    ObjectGone,
    ObjectUnread,
    SourceAway,
    SourceRefused,
    SourceUnknown,
    Unwanted,
)
from fediwarden.sweep.files import FilesSource
from fediwarden.sweep.opening import open_source
from fediwarden.sweep.settings import SweepSettings
from fediwarden.sweep.source import Body, StoredObject
from gateway.settings import TenantSettings
from tests.object_stores import (
    S3,
    ObjectStore,
    Sftp,
    find_sshd,
    running_asyncssh,
    running_folder,
    running_s3,
    running_sshd,
)

KINDS = ("folder", "s3", "sftp", "sshd")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(5000)  # as a PNG begins; nobody decodes it here
PATHS = ("a.png", "b/1.png", "b/2.png", "b/c/3.png", "b.png", "d e/ü.png", "z.txt")


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One of each kind, filled."""
    folder = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        made: ObjectStore
        if request.param == "folder":
            made = stack.enter_context(running_folder(folder / "root"))
        elif request.param == "s3":
            made = stack.enter_context(running_s3(folder))
        elif request.param == "sftp":
            made = stack.enter_context(running_asyncssh(folder))
        else:
            sshd = find_sshd()
            if sshd is None:
                pytest.skip("no sshd: sh tests/openssh.sh")
            made = stack.enter_context(running_sshd(sshd))
        yield made


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test on these kinds alone."""
    return pytest.mark.parametrize("store", kinds, indirect=True, scope="module")


@pytest.fixture(autouse=True)
def _filled(store: ObjectStore) -> None:
    for path in store.paths() - set(PATHS):
        store.delete(path)
    for path in PATHS:
        store.put(path, PNG + path.encode() if path.endswith(".png") else b"no image")


def _open(store: ObjectStore, *, page: int = 50, quarantine: str | None = None, **settings: Any) -> FilesSource:
    source = open_source(
        store.source,
        SweepSettings(**store.settings | settings),
        tenant="default",
        of=TenantSettings(),
        quarantine=quarantine,
    )
    assert isinstance(source, FilesSource)
    source._page = page
    return source


def _ask(store: ObjectStore, ask: Callable[[FilesSource], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def go() -> Any:
        source = _open(store, **options)
        if isinstance(store, S3) and not options.keys() & SweepSettings.model_fields.keys():
            # To connect takes botocore a second of reading what there is at Amazon.
            source._fs = store.connection = store.connection or source._connect()
        try:
            return await ask(source)
        finally:
            await source.close()

    return asyncio.run(go())


async def _all(source: FilesSource, marks: tuple[str, ...] = ()) -> list[StoredObject]:
    found: list[StoredObject] = []
    position: tuple[str, ...] = ()
    while True:
        page = await source.page(position, marks)
        found += page.objects
        position = page.position
        if page.last:
            return found


def _listed(store: ObjectStore, **options: Any) -> dict[str, StoredObject]:
    return {each.path: each for each in _ask(store, _all, **options)}


async def _read(source: FilesSource, stored: StoredObject, most: int = 1 << 20) -> tuple[bytes, int]:
    with Body(most) as body:
        await source.read(stored, body)
        return body.sha256, body.length


def test_every_object_is_listed_once_and_read_whole(store: ObjectStore) -> None:
    found = _ask(store, _all, page=2)
    assert sorted(each.path for each in found) == sorted(PATHS)
    for stored in found:
        if stored.path.endswith(".png"):
            data = PNG + stored.path.encode()
            read = _ask(store, lambda source, stored=stored: _read(source, stored))
            assert read == (hashlib.sha256(data).digest(), len(data))


def test_another_process_goes_on_after_any_page(store: ObjectStore) -> None:
    order = [each.path for each in _ask(store, _all)]
    for done in (1, 4, len(order) - 1):
        first = _ask(store, lambda source: source.page((), ()), page=done)
        rest = _ask(store, lambda source, first=first: source.page(first.position, ()))
        assert [each.path for each in (*first.objects, *rest.objects)] == order
        assert (first.last, rest.last, first.marks != (), rest.marks) == (False, True, True, ())


def test_what_is_no_image_or_too_large_is_read_no_further(store: ObjectStore) -> None:
    listed = _listed(store)
    with pytest.raises(Unwanted) as text:
        _ask(store, lambda source: _read(source, listed["z.txt"]))
    assert text.value.count == "skipped"
    with pytest.raises(Unwanted) as large:
        _ask(store, lambda source: _read(source, listed["a.png"], most=len(PNG)))
    assert large.value.count == "too_large"


def test_an_object_is_removed_unless_it_has_changed_or_is_gone(store: ObjectStore) -> None:
    listed = _listed(store)
    _ask(store, lambda source: source.remove(listed["b/1.png"]))
    assert store.paths() == set(PATHS) - {"b/1.png"}
    with pytest.raises(ObjectGone):
        _ask(store, lambda source: source.remove(listed["b/1.png"]))
    with pytest.raises(ObjectGone):
        _ask(store, lambda source: _read(source, listed["b/1.png"]))
    store.put("b/2.png", PNG + b"another one")
    with pytest.raises(ObjectChanged):
        _ask(store, lambda source: source.remove(listed["b/2.png"]))
    assert store.get("b/2.png") == PNG + b"another one"


def test_what_is_quarantined_is_the_same_bytes_elsewhere_and_is_not_listed(store: ObjectStore) -> None:
    async def move(source: FilesSource) -> list[str]:
        moved = []
        for stored in [each for each in await _all(source) if each.path in ("a.png", "b/c/3.png")]:
            with Body(1 << 20) as body:
                await source.read(stored, body)
                moved.append(await source.move(stored, body))
        return moved

    moved = _ask(store, move, quarantine="quarantine")
    assert [each.rpartition("quarantine/")[2] for each in moved] == ["a.png", "b/c/3.png"]
    assert store.paths() == set(PATHS) - {"a.png", "b/c/3.png"} | {"quarantine/a.png", "quarantine/b/c/3.png"}
    assert store.get("quarantine/b/c/3.png") == PNG + b"b/c/3.png"
    assert set(_listed(store, quarantine="quarantine")) == set(PATHS) - {"a.png", "b/c/3.png"}
    store.put("a.png", PNG + b"later")  # another one of the same name
    _ask(store, move, quarantine="quarantine")
    assert store.get("quarantine/a.png") == PNG + b"a.png"
    assert PNG + b"later" in [store.get(path) for path in store.paths() if path.startswith("quarantine/a.png.")]


def test_what_is_older_than_the_mark_is_passed_over(store: ObjectStore) -> None:
    later = str(int((time.time() + 3600) * 1000))
    assert _ask(store, lambda source: _all(source, (later,))) == []
    assert len(_ask(store, lambda source: _all(source, (str(int((time.time() - 3600) * 1000)),)))) == len(PATHS)


@of_kind("sftp", "sshd")
def test_an_sftp_server_that_goes_away_is_said_to_and_found_again(store: Sftp) -> None:
    async def go() -> None:
        source = _open(store, page=2)
        page = await source.page((), ())
        store.stop()
        with pytest.raises(ObjectUnread):
            await _read(source, page.objects[0])
        with pytest.raises(SourceAway, match="does not answer"):
            await source.check()
        with pytest.raises(SourceAway):
            await source.page(page.position, ())
        store.start()
        await source.check()
        rest = [each.path for each in (await source.page(page.position, ())).objects]
        assert rest and not set(rest) & {each.path for each in page.objects}
        await _read(source, page.objects[0])

    try:
        asyncio.run(go())
    finally:
        store.stop()
        store.start()


@of_kind("sftp", "sshd")
def test_a_wrong_password_key_or_host_key_is_refused_and_named(store: Sftp, tmp_path: Path) -> None:
    unknown = tmp_path / "known_hosts"
    unknown.write_text("")
    with pytest.raises(SourceRefused, match=r"sweep\.sftp_known_hosts"):
        _ask(store, lambda source: source.check(), sftp_known_hosts=unknown)
    if "sftp_password" in store.settings:
        with pytest.raises(SourceRefused, match=r"sweep\.sftp_password"):
            _ask(store, lambda source: source.check(), sftp_password="wrong")


@of_kind("s3")
def test_an_s3_key_that_may_do_nothing_is_refused(store: S3) -> None:
    with store.letting_nobody_in(), pytest.raises(SourceRefused, match=r"sweep\.s3_key_id"):
        _ask(store, lambda source: source.check(), s3_secret="wrong")


@of_kind("sshd")  # the only one that root's rights are not with
def test_what_the_store_does_not_let_us_read_is_named_and_nothing_else_suffers(store: ObjectStore) -> None:
    assert isinstance(store, Sftp)
    (store.root / "b.png").chmod(0)
    (store.root / "b").chmod(0)
    try:
        listed = _listed(store)
        assert {path for path, each in listed.items() if each.fault} == {"b"}
        assert set(listed) == {"a.png", "b", "b.png", "d e/ü.png", "z.txt"}
        with pytest.raises(ObjectUnread, match="ermission"):
            _ask(store, lambda source: _read(source, listed["b.png"]))
    finally:
        (store.root / "b.png").chmod(0o644)
        (store.root / "b").chmod(0o755)


def test_a_place_that_is_not_there_is_unknown(store: ObjectStore, tmp_path: Path) -> None:
    missing = "s3://nothing-here/cache" if store.source.startswith("s3://") else store.source + "/nothing-here"
    with pytest.raises(SourceUnknown, match="nothing-here"):
        source = open_source(missing, SweepSettings(**store.settings), tenant="t", of=TenantSettings(), quarantine=None)
        asyncio.run(source.check())
