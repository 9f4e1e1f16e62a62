import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fediwarden.rotation import add_key
from schemas.keyring import Keyring, KeyringError


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key file with one key."""
    file = tmp_path / "keys.json"
    Keyring.load_or_create(file)
    return file


def test_a_new_key_is_primary_and_the_file_stays_for_its_owner_alone(key_file: Path) -> None:
    first = Keyring.load(key_file).primary
    inode = key_file.stat().st_ino
    keyring = add_key(key_file)
    assert keyring.key_ids == (first, keyring.primary)
    assert Keyring.load(key_file).primary == keyring.primary
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.stat().st_ino != inode, "written over in place: a reader could find half of it"
    assert [each.name for each in key_file.parent.iterdir()] == ["keys.json"]


def test_keys_added_at_the_same_time_all_last_and_a_reader_never_finds_half_a_file(key_file: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        added = [threads.submit(add_key, key_file) for _ in range(16)]
        while not all(each.done() for each in added):
            Keyring.load(key_file)
        made = {each.result().primary for each in added}
    assert len(made) == 16
    assert made < set(Keyring.load(key_file).key_ids)


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_file.read_bytes()

    def save(_keyring: Keyring, path: Path) -> None:
        path.write_bytes(b"{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Keyring, "save", save)
    with pytest.raises(KeyringError, match=r"cannot be replaced \(No space left on device\).*needs room"):
        add_key(key_file)
    assert key_file.read_bytes() == before
    assert [each.name for each in key_file.parent.iterdir()] == ["keys.json"]


def test_a_link_to_the_key_file_stays_a_link(key_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "keys.json"
    link.parent.mkdir()
    link.symlink_to(key_file)
    keyring = add_key(link)
    assert link.is_symlink()
    assert Keyring.load(key_file).key_ids == keyring.key_ids


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_account_stays_that_accounts_when_root_adds_a_key(key_file: Path) -> None:
    os.chown(key_file, 12345, 23456)
    add_key(key_file)
    assert (key_file.stat().st_uid, key_file.stat().st_gid) == (12345, 23456)


def test_a_key_file_that_others_can_read_is_not_added_to(key_file: Path) -> None:
    key_file.chmod(0o640)
    before = key_file.read_bytes()
    with pytest.raises(KeyringError, match=f"chmod 600 {key_file}"):
        add_key(key_file)
    assert key_file.read_bytes() == before
