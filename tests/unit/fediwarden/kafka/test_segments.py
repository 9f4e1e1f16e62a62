"""Finding keys and bytes in files, with record batches as a Kafka client writes them."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from fediwarden.erasure_check import Found, NothingToSearch, search_disk
from fediwarden.kafka import segments
from fediwarden.kafka.segments import FilesUnreadable, find_bytes, find_records, list_partitions
from schemas.codec import encode
from tests.unit.schemas.samples import SHA256, image

CIPHERTEXT = os.urandom(3000)


def batch(*records: tuple[bytes | None, bytes | None]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset, (key, value) in enumerate(records):
        builder.append(offset, 1_795_000_000_000 + offset, key, value, [("schema", b"image-submitted/1")])
    return bytes(builder.build())


def sealed_image() -> bytes:
    return encode(image(sealed=image().sealed.model_copy(update={"ciphertext": CIPHERTEXT})))


def partition(data_dir: Path, name: str, node: int = 1) -> Path:
    folder = data_dir / "kafka" / f"node-{node}" / "data" / name
    folder.mkdir(parents=True)
    return folder


def search(data_dir: Path, prefix: str, sha256: bytes, ciphertexts: Sequence[bytes] = ()) -> list[Found]:
    return search_disk(data_dir, prefix, sha256, ciphertexts, spool_dir=data_dir / "spool")


@pytest.mark.parametrize("name", ["00.log", "00.log.deleted", "00.log.swap", "00.log.cleaned"])
@pytest.mark.parametrize(
    "folder",
    [
        "fediwarden.images-3",
        "fediwarden.images.archive-11",
        "fediwarden.images-3.0123456789abcdef-delete",
        "fediwarden.images-3.0123456789abcdef-stray",
    ],
)
def test_a_record_is_found_with_its_value_and_then_its_ciphertext_wherever_it_is(tmp_path, folder, name):
    value = sealed_image()
    log = partition(tmp_path, folder, node=2) / name
    log.write_bytes(batch((b"other", b"x" * 500)) + batch((b"k", b"v"), (SHA256, value)))
    copy = tmp_path / "spool" / "0" / "segment"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"#" * 777 + CIPHERTEXT)
    record, in_log, in_copy = search(tmp_path, "fediwarden.", SHA256)
    assert (record.what, record.where) == ("record", str(log))
    assert (record.topic, record.partition) == (folder.split("-")[0], int(folder.split("-")[1].split(".")[0]))
    assert log.read_bytes()[record.at :].startswith(SHA256)
    assert {(in_log.where, in_log.at), (in_copy.where, in_copy.at)} == {
        (str(log), log.read_bytes().index(CIPHERTEXT)),
        (str(copy), 777),
    }


def test_tombstones_other_keys_and_other_topics_are_no_finds(tmp_path):
    log = partition(tmp_path, "fediwarden.images-0") / "00.log"
    log.write_bytes(batch((SHA256, None), (SHA256[:31], b"v" * 40), (b"k", SHA256 * 3)))
    (partition(tmp_path, "fediwarden.verdicts-0") / "00.log").write_bytes(batch((SHA256, b"a verdict")))
    assert search(tmp_path, "fediwarden.", SHA256) == []
    log.write_bytes(log.read_bytes() + batch((SHA256, b"")))
    assert [found.what for found in search(tmp_path, "fediwarden.", SHA256)] == ["record"]


def test_bytes_noted_earlier_are_found_when_no_record_is_left(tmp_path):
    log = partition(tmp_path, "fediwarden.images-0") / "00.log"
    log.write_bytes(b"\0" * 100 + CIPHERTEXT[:16] + b"\0" * 100)
    assert search(tmp_path, "fediwarden.", SHA256) == []
    (found,) = search(tmp_path, "fediwarden.", SHA256, [CIPHERTEXT[:16]])
    assert (found.what, found.where, found.at) == ("ciphertext", str(log), 100)


def test_a_torn_record_counts_as_found(tmp_path):
    whole = batch((SHA256, sealed_image()))
    log = partition(tmp_path, "fediwarden.images-0") / "00.log"
    log.write_bytes(whole[: whole.index(SHA256) + 200])
    assert [found.what for found in search(tmp_path, "fediwarden.", SHA256)] == ["record"]


def test_a_folder_without_our_topics_and_without_a_spool_is_not_taken_for_a_clean_one(tmp_path):
    with pytest.raises(NothingToSearch, match="--data-dir"):
        search(tmp_path, "fediwarden.", SHA256)
    partition(tmp_path, "fediwarden.images-0")
    with pytest.raises(NothingToSearch, match=r"other\.images"):
        search(tmp_path, "other.", SHA256)


@pytest.mark.parametrize("folder", ["frames", "refused"])
def test_before_kafka_has_topics_the_spool_and_all_bytes_are_searched(tmp_path, folder):
    (tmp_path / "kafka" / "node-1" / "data").mkdir(parents=True)
    for name in (folder, "answers"):
        segment = tmp_path / "spool" / "0" / name / "1.log"
        segment.parent.mkdir(parents=True)
        segment.write_bytes(b"head" + SHA256 + CIPHERTEXT)
    (found,) = search(tmp_path, "fediwarden.", SHA256)
    assert (found.what, found.where, found.at) == ("spool", str(tmp_path / "spool" / "0" / folder / "1.log"), 4)
    assert search(tmp_path, "fediwarden.", bytes(32)) == []
    assert len(search(tmp_path, "fediwarden.", bytes(32), [CIPHERTEXT[:64]])) == 2


@settings(deadline=None)
@given(
    content=st.lists(st.sampled_from(b"ab"), max_size=60).map(bytes),
    needle=st.lists(st.sampled_from(b"ab"), min_size=1, max_size=9).map(bytes),
    chunk=st.integers(1, 12),
)
def test_every_place_is_found_once_however_the_file_is_cut_into_pieces(content, needle, chunk):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_CHUNK_BYTES", chunk)
        Path(folder, "file").write_bytes(content)
        expected = [at for at in range(len(content)) if content.startswith(needle, at)]
        found = find_bytes(Path(folder), [needle, b"a needle longer than that"])
        assert [hit.at for hit in found] == expected


def test_a_file_that_is_renamed_while_it_is_looked_for_is_found_under_its_new_name(tmp_path, monkeypatch):
    log = partition(tmp_path, "fediwarden.images-0") / "00.log"
    log.write_bytes(batch((SHA256, sealed_image())))
    lstat = Path.lstat

    def rename_first(path: Path) -> os.stat_result:
        if path == log and log.exists():
            log.rename(f"{log}.deleted")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", rename_first)
    partitions = list_partitions(tmp_path / "kafka", ["fediwarden.images"])
    assert [record.file.name for record in find_records(partitions, SHA256)] == ["00.log.deleted"]


def test_what_cannot_be_read_is_said_and_not_passed_over(tmp_path, monkeypatch):
    folder = partition(tmp_path, "fediwarden.images-0")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FilesUnreadable, match=r"fediwarden\.images-0 cannot be read: Permission denied"):
        search(tmp_path, "fediwarden.", SHA256)


def test_a_spool_that_cannot_be_looked_into_does_not_pass_for_an_empty_one(tmp_path, monkeypatch):
    partition(tmp_path, "fediwarden.images-0")
    spool = tmp_path / "spool"
    spool.mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == spool:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FilesUnreadable, match=r"spool cannot be read: Permission denied"):
        search(tmp_path, "fediwarden.", SHA256)
