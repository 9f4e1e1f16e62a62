"""The keys that frames are encrypted with before they reach Kafka.

A frame set is packed (msgpack array of JPEGs) and sealed with AES-256-GCM under a random 96-bit nonce; the image's
sha256 and tenant are the associated data, so a ciphertext moved to another record does not open. The key file is JSON,
mode 0600: ``{"primary": "<id>", "keys": {"<id>": "<base64 of 32 bytes>"}}``. Rotation adds a key and makes it primary;
old keys stay until nothing sealed with them is kept. Random nonces bound one key to 2**32 seals (NIST SP 800-38D 8.3).
"""

import base64
import binascii
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.messages import SealedFrames

_KEY_BYTES = 32
_NONCE_BYTES = 12


class KeyringError(Exception):
    """The key file cannot be used; the message names the file and the remedy."""


class FramesUndecryptable(Exception):
    """Sealed frames that no key opens: unknown key id, another image's frames, or bytes that were changed."""


class Keyring:
    """Keys by id, one of them primary. Seals with the primary, opens with any."""

    def __init__(self, keys: Mapping[str, bytes], primary: str) -> None:
        if primary not in keys:
            raise KeyringError(f"the primary key {primary!r} is not among the keys")
        for key_id, key in keys.items():
            if len(key) != _KEY_BYTES or not 1 <= len(key_id) <= 32:
                raise KeyringError(f"key {key_id!r} must have {_KEY_BYTES} bytes and an id of 1 to 32 characters")
        self.primary = primary
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._keys = dict(keys)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys, oldest first."""
        return tuple(self._keys)

    @classmethod
    def generate(cls) -> Self:
        """A keyring with one new random key."""
        key_id = secrets.token_hex(4)
        return cls({key_id: secrets.token_bytes(_KEY_BYTES)}, key_id)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The keyring in the file `path`. Raises `KeyringError`: missing, readable by others, or damaged."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise KeyringError(
                f"key file {path}: {error.strerror}; copy it from the machine that made it, or start"
                " 'fediwarden up' once to make a new one (frames sealed with the old one stay unreadable)"
            ) from error
        if mode & 0o077:
            raise KeyringError(f"key file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")
        try:
            content = json.loads(text)
            keys = {str(k): base64.b64decode(v, validate=True) for k, v in content["keys"].items()}
            return cls(keys, str(content["primary"]))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise KeyringError(f"key file {path} is damaged ({error}); restore it from a backup") from error

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The keyring in `path`, which is made (mode 0600) when it is not there. Safe when two processes race."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            new = cls.generate()
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            new.save(temporary)
            try:
                os.link(temporary, path)  # fails where another process was first: its file stays
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write the key file `path` (mode 0600) and fsync it."""
        encoded = {key_id: base64.b64encode(key).decode("ascii") for key_id, key in self._keys.items()}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"primary": self.primary, "keys": encoded}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def with_new_key(self) -> "Keyring":
        """This keyring with one more key, which is the primary."""
        added = Keyring.generate()
        return Keyring(self._keys | added._keys, added.primary)

    def seal(self, jpegs: Sequence[bytes], *, sha256: bytes, tenant: str) -> SealedFrames:
        """Encrypt a frame set for the image `sha256` of `tenant`."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = msgpack.packb(list(jpegs), use_bin_type=True)
        ciphertext = self._ciphers[self.primary].encrypt(nonce, plain, _bind(sha256, tenant))
        return SealedFrames(key_id=self.primary, nonce=nonce, ciphertext=ciphertext)

    def open(self, sealed: SealedFrames, *, sha256: bytes, tenant: str) -> list[bytes]:
        """The JPEGs of a frame set. Raises `FramesUndecryptable`."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise FramesUndecryptable(f"key {sealed.key_id!r} is not in the key file; add it back to read this")
        try:
            plain = cipher.decrypt(sealed.nonce, sealed.ciphertext, _bind(sha256, tenant))
            jpegs = msgpack.unpackb(plain, raw=False)
        except InvalidTag as error:
            raise FramesUndecryptable(f"not sealed with key {sealed.key_id!r} for this image") from error
        except ValueError as error:
            raise FramesUndecryptable(f"the sealed bytes are no frame set ({error})") from error
        if not isinstance(jpegs, list) or not all(isinstance(jpeg, bytes) for jpeg in jpegs):
            raise FramesUndecryptable("the sealed bytes are no frame set")
        return jpegs


def _bind(sha256: bytes, tenant: str) -> bytes:
    return sha256 + tenant.encode("utf-8")
