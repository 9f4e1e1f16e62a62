import json
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.keyring import FramesUndecryptable, Keyring, KeyringError

SHA = b"s" * 32


@given(st.lists(st.binary(max_size=500), max_size=8), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens_again(jpegs, sha256):
    keyring = Keyring.generate()
    assert keyring.open(keyring.seal(jpegs, sha256=sha256, tenant="a"), sha256=sha256, tenant="a") == jpegs


def test_the_ciphertext_shows_nothing_of_the_frames():
    jpeg = b"\xff\xd8\xff\xe0JFIF" * 10
    assert b"JFIF" not in Keyring.generate().seal([jpeg], sha256=SHA, tenant="a").ciphertext


@pytest.mark.parametrize(("sha256", "tenant"), [(b"t" * 32, "a"), (SHA, "b")])
def test_frames_moved_to_another_image_or_tenant_do_not_open(sha256, tenant):
    keyring = Keyring.generate()
    sealed = keyring.seal([b"x"], sha256=SHA, tenant="a")
    with pytest.raises(FramesUndecryptable):
        keyring.open(sealed, sha256=sha256, tenant=tenant)


def test_one_changed_bit_is_noticed():
    keyring = Keyring.generate()
    sealed = keyring.seal([b"x" * 100], sha256=SHA, tenant="a")
    changed = sealed.model_copy(update={"ciphertext": bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]})
    with pytest.raises(FramesUndecryptable):
        keyring.open(changed, sha256=SHA, tenant="a")


def test_a_rotated_keyring_seals_with_the_new_key_and_opens_both():
    old = Keyring.generate()
    new = old.with_new_key()
    before, after = (k.seal([b"x"], sha256=SHA, tenant="a") for k in (old, new))
    assert before.key_id != after.key_id
    assert new.open(before, sha256=SHA, tenant="a") == new.open(after, sha256=SHA, tenant="a") == [b"x"]


def test_an_unknown_key_id_names_the_remedy():
    sealed = Keyring.generate().seal([b"x"], sha256=SHA, tenant="a")
    with pytest.raises(FramesUndecryptable, match="is not in the key file"):
        Keyring.generate().open(sealed, sha256=SHA, tenant="a")


def test_the_key_file_is_made_private_and_kept(tmp_path):
    path = tmp_path / "deep" / "keys.json"
    first = Keyring.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.load_or_create(path).primary == first.primary
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


def test_processes_that_race_for_the_first_key_agree(tmp_path):
    path, found = tmp_path / "keys.json", []
    threads = [threading.Thread(target=lambda: found.append(Keyring.load_or_create(path).primary)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_a_key_file_others_can_read_is_refused_with_the_command(tmp_path):
    path = tmp_path / "keys.json"
    Keyring.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(KeyringError, match=f"chmod 600 {path}"):
        Keyring.load(path)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "not json", '{"primary": "a", "keys": {"a": "c2hvcnQ="}}', '{"primary": "a", "keys": []}'],
)
def test_a_damaged_key_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyringError):
        Keyring.load(path)


def test_a_primary_that_is_not_among_the_keys_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    Keyring.load_or_create(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"primary": "other"}))
    with pytest.raises(KeyringError, match="primary"):
        Keyring.load(path)


def test_a_missing_key_file_says_what_to_do(tmp_path):
    with pytest.raises(KeyringError, match="copy it from the machine that made it"):
        Keyring.load(tmp_path / "keys.json")
