"""Which Lemmy it is: 0.19 and 1.0 list their blocks under different addresses."""

from federation_audit.sending.errors import SideUnexpected
from federation_audit.sending.lemmy_0_19 import Lemmy019
from federation_audit.sending.lemmy_1_0 import Lemmy10
from federation_audit.sending.remote import Remote
from federation_audit.sending.settings import LemmyVersion


async def find_version(address: str, jwt: str, *, answer_within_s: float = 20.0) -> LemmyVersion:
    """Ask the Lemmy at `address`; 1.0 where it has both interfaces. Raises `NotSent`."""
    remote = Remote(
        address,
        {"authorization": f"Bearer {jwt}"},
        remedy="the token: it is of an admin's session, and ends when that is logged out",
        answer_within_s=answer_within_s,
    )
    try:
        try:
            await remote.read("/api/v4/federated_instances", {"kind": "blocked", "limit": "1"})
        except SideUnexpected:
            pass
        else:
            return LemmyVersion.V1_0
        try:
            await remote.read("/api/v3/federated_instances")
        except SideUnexpected as error:
            raise SideUnexpected(
                f"{remote.address} answers neither as Lemmy 1.0 nor as 0.19; look at audit.targets.lemmy.address"
            ) from error
        return LemmyVersion.V0_19
    finally:
        await remote.close()


async def open_lemmy(
    address: str, jwt: str, version: LemmyVersion, *, answer_within_s: float = 20.0
) -> Lemmy019 | Lemmy10:
    """The Lemmy at `address`, whichever it is. Raises `NotSent` where it has to be asked."""
    if version is LemmyVersion.AUTO:
        version = await find_version(address, jwt, answer_within_s=answer_within_s)
    made = Lemmy019 if version is LemmyVersion.V0_19 else Lemmy10
    return made(address, jwt, answer_within_s=answer_within_s)
