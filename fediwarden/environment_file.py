"""The file `.env` that compose/compose.yaml reads: made with new secrets, rotated, and what follows from it elsewhere.

It holds settings under the names that they have in the environment, and a few words for compose itself. A person fills
in what only they know; nothing in it is changed afterwards but the secrets, and those on demand alone.
"""

import base64
import re
import secrets
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from fediwarden.private_files import PrivateFileExists, PrivateFileRefused, replace, write_new
from schemas.domains import normalise_domain

NAME = ".env"
TENANT_KEY = "FEDIWARDEN_TENANTS__DEFAULT__KEY"
ADMIN_TOKEN = "FEDIWARDEN_GATEWAY__ADMIN_TOKEN"  # noqa: S105  # a variable's name
PICT_RS = "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS"
API_KEY = "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY"
DOMAIN = "FEDIWARDEN_TENANTS__DEFAULT__DOMAIN"
CLUSTER_ID = "KAFKA_CLUSTER_ID"
GATEWAY_ADDRESS = "GATEWAY_ADDRESS"
SUBNET = "IMAGES_SUBNET"
ROTATED = (TENANT_KEY, ADMIN_TOKEN)
"""What `rotate` makes anew. Not Kafka's cluster id: that is no secret, and its data bears it."""

PICT_RS_AT = "http://pictrs:8080"
GATEWAY_AT, IMAGES_ON = "10.140.51.250", "10.140.51.0/24"
"""Outside of what Docker gives to networks by itself. compose.yaml has the same, for where .env says nothing."""
_SECRET_BYTES = 24
_LINE = re.compile(r"(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)")

_TEMPLATE = """\
# Written by `fediwarden init`, for compose.yaml beside it. Keep it secret, and keep a copy with your backups.
# An empty value counts as not set. Write values with $, # or spaces in single quotes.

COMPOSE_PROJECT_NAME=fediwarden
# With a GPU: compose.yaml:compose.gpu.yaml
COMPOSE_FILE=compose.yaml
# Of relay, lemmy, rescans: what you want besides, separated by commas (docs/compose.md).
COMPOSE_PROFILES=

# The last part of the address that pict-rs is given (PICTRS__MEDIA__EXTERNAL_VALIDATION).
{key}={key_value}
# For overrides over HTTP (docs/overrides.md).
{token}={token_value}

# Your pict-rs, as it is called on the network fediwarden-images, and its PICTRS__SERVER__API_KEY: with it, what turns
# out bad too late is removed from pict-rs. Without it, such files stay.
{pict_rs}={pict_rs_value}
{api_key}=

# Where pict-rs meets the gateway: a network, and an address on it. From 0.5.21 on, pict-rs connects to no
# name whose address is private, so it is given the address itself. Change both where another network has these.
{subnet}={subnet_value}
{gateway}={gateway_value}

# `hostname` in Lemmy's settings; for the relay and the audit.
{domain}={domain_value}
# For `lemmy`, and for the relay: postgresql://fediwarden:<password>@postgres:5432/lemmy (docs/lemmy.md).
FEDIWARDEN_TENANTS__DEFAULT__LEMMY_DATABASE=
# Where browsers reach the audit's pages, if not at http://127.0.0.1:14052 (docs/audit-pages.md).
FEDIWARDEN_AUDIT__PAGES__PUBLIC_URL=

# Kafka's data bears it: do not change it.
{cluster}={cluster_value}
"""


class EnvironmentFileError(Exception):
    """The file cannot be made, read or changed; the message names it and the remedy."""


def make(folder: Path, *, domain: str | None = None, pict_rs: str = PICT_RS_AT) -> Path:
    """Write a new file (mode 0600) with new secrets into `folder`, and return its path.

    Raises `EnvironmentFileError` where there is one already (it is left alone), where it cannot be written, and for a
    domain that is none.
    """
    try:
        domain = "" if domain is None else normalise_domain(domain)
    except ValueError as error:
        raise EnvironmentFileError(f"--domain {domain}: {error}; write it as `hostname` in Lemmy's settings") from error
    text = _TEMPLATE.format(
        key=TENANT_KEY,
        key_value=_make_secret(),
        token=ADMIN_TOKEN,
        token_value=_make_secret(),
        pict_rs=PICT_RS,
        pict_rs_value=pict_rs,
        api_key=API_KEY,
        subnet=SUBNET,
        subnet_value=IMAGES_ON,
        gateway=GATEWAY_ADDRESS,
        gateway_value=GATEWAY_AT,
        domain=DOMAIN,
        domain_value=domain,
        cluster=CLUSTER_ID,
        cluster_value=_make_cluster_id(),
    )
    path = folder / NAME
    try:
        write_new(path, text.encode())
    except PrivateFileExists as error:
        raise EnvironmentFileError(
            f"{path} is there already, and was left as it is. `--show` prints what follows from it, `--rotate` gives it"
            " new secrets. To begin anew, remove it together with Kafka's volume: that bears its cluster id"
        ) from error
    except PrivateFileRefused as error:
        raise EnvironmentFileError(
            f"{error}; in a container, mount the folder and be its owner:"
            ' docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/out" ... init /out'
        ) from error
    return path


def rotate(folder: Path) -> Path:
    """Give the file in `folder` new secrets in place of those of `ROTATED`; every other line stays as it is.

    The file is replaced whole. Raises `EnvironmentFileError`.
    """
    path = folder / NAME
    values = read(folder)
    missing = [name for name in ROTATED if name not in values]
    if missing:
        raise EnvironmentFileError(f"{path} has no line {missing[0]}=; add it, with any value, to have it rotated")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _LINE.fullmatch(line.strip())
        lines.append(f"{found['name']}={_make_secret()}" if found and found["name"] in ROTATED else line)
    try:
        replace(path, ("\n".join(lines) + "\n").encode())
    except PrivateFileRefused as error:
        raise EnvironmentFileError(f"{error}; it was left as it is") from error
    return path


def read(folder: Path) -> dict[str, str]:
    """The values in the file in `folder`, by name. Raises `EnvironmentFileError`: not there, or readable by others."""
    path = folder / NAME
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFileError(f"{path}: {error.strerror}; make one with: fediwarden init {folder}") from error
    if mode & 0o077:
        raise EnvironmentFileError(f"{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")
    found = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {each["name"]: _unquote(each["value"]) for each in found if each}


def _unquote(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else value


def _make_secret() -> str:
    return secrets.token_hex(_SECRET_BYTES)


def _make_cluster_id() -> str:
    """In Kafka's form: 16 random bytes in URL-safe base64, not beginning with what looks like an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return made


def lines_for_pict_rs(values: Mapping[str, str]) -> Iterator[str]:
    """The environment of pict-rs, a variable a line. It holds the tenant's key."""
    address = values.get(GATEWAY_ADDRESS) or GATEWAY_AT
    yield f"PICTRS__MEDIA__EXTERNAL_VALIDATION=http://{address}:14051/api/v1/scan/{values[TENANT_KEY]}"
    yield "PICTRS__MEDIA__EXTERNAL_VALIDATION_TIMEOUT=8"


def next_steps(path: Path, values: Mapping[str, str]) -> Iterator[str]:
    """What a person does with the file `path`, line by line. It holds the tenant's key."""
    yield f"1. In {path}, fill in {API_KEY}: the value of PICTRS__SERVER__API_KEY of your pict-rs."
    yield "2. Start fediwarden, in the folder of compose.yaml:"
    yield "     docker compose up --detach --wait"
    yield "     docker compose exec audit fediwarden users add NAME --role admin"
    yield "3. In the docker-compose.yml of your Lemmy, give the service pictrs (see also override.pict-rs.yaml):"
    yield "     environment:"
    for line in lines_for_pict_rs(values):
        yield f"       - {line}"
    yield "     networks: [default, fediwarden-images]"
    yield "   and, at the end of the file:"
    yield "     networks:"
    yield "       fediwarden-images: {external: true}"
    yield "   then: docker compose up --detach pictrs"
    yield "   With lemmy-ansible, the first two go into pictrs_env_vars (docs/compose.md)."
    yield "4. For the relay: COMPOSE_PROFILES=relay in the .env, and in lemmy.hjson"
    yield '     pictrs: { url: "http://fediwarden-relay:14053/" }'
    yield "   with Lemmy's service lemmy on the network fediwarden-images, too."
