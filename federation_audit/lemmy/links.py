"""Which names are one image's: what an origin that bears a hash together with an alias or an address says."""

from collections import OrderedDict

from federation_audit.lemmy.database import Sought

_NAMES_MOST = 8


class Links:
    """Names by hash, and hashes by name, of the `most` images that were spoken of last.

    An image may have several aliases and addresses; the last eight are kept. An address whose bytes change belongs to
    the last hash.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: OrderedDict[tuple[str, bytes], OrderedDict[Sought, None]] = OrderedDict()
        self._hashes: dict[tuple[str, str], bytes] = {}

    def learn(self, tenant: str, sha256: bytes, name: Sought) -> None:
        """Note that the image `sha256` of `tenant` goes by `name`."""
        names = self._names.setdefault((tenant, sha256), OrderedDict())
        names[name] = None
        names.move_to_end(name)
        self._names.move_to_end((tenant, sha256))
        for each in _keys(name):
            self._hashes[(tenant, each)] = sha256
        if len(names) > _NAMES_MOST:
            self._forget(tenant, sha256, names.popitem(last=False)[0])
        while len(self._names) > self._most:
            (its_tenant, its_hash), gone = self._names.popitem(last=False)
            for name_gone in gone:
                self._forget(its_tenant, its_hash, name_gone)

    def names_of(self, tenant: str, sha256: bytes) -> tuple[Sought, ...]:
        """What the image `sha256` goes by."""
        names = self._names.get((tenant, sha256), ())
        return tuple(name for name in names if self.hash_of(tenant, name) == sha256)

    def hash_of(self, tenant: str, name: Sought) -> bytes:
        """The hash of the image of this name, b"" where it is not known."""
        return next((found for each in _keys(name) if (found := self._hashes.get((tenant, each)))), b"")

    def _forget(self, tenant: str, sha256: bytes, name: Sought) -> None:
        left = {key for each in self._names.get((tenant, sha256), ()) for key in _keys(each)}
        for key in _keys(name):
            if key not in left and self._hashes.get((tenant, key)) == sha256:
                del self._hashes[(tenant, key)]


def _keys(name: Sought) -> list[str]:
    return [f"{kind}:{text}" for kind, text in (("alias", name.alias), ("url", name.url)) if text]
