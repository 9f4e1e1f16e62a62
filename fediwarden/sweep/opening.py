"""From what a person names to the source of a sweep."""

import socket
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from fediwarden.sweep.errors import MissingExtra, SourceUnknown
from fediwarden.sweep.pict_rs import PictRsSource
from fediwarden.sweep.settings import SweepSettings
from fediwarden.sweep.source import Source
from gateway.settings import TenantSettings
from schemas.extras import install_command

PICT_RS = "pict-rs"
_FORMS = f"{PICT_RS}, /a/folder, s3://bucket/prefix or sftp://user@host/a/folder"
_BLOCK_BYTES = 5 << 20  # what S3 lets a part of an upload have at least; most images come in one request
_CONNECT_WITHIN_S = 10
_READ_WITHIN_S = 30


def open_source(
    named: str, settings: SweepSettings, *, tenant: str, of: TenantSettings, quarantine: str | None
) -> Source:
    """The source that `named` stands for; nothing is connected yet. `of` are the settings of `tenant`.

    `quarantine` is a path of the same store, relative to what is swept unless it begins with a slash.
    Raises `SourceUnknown`, `MissingExtra`.
    """
    if named == PICT_RS:
        return _open_pict_rs(tenant, of, quarantine)
    scheme, separator, _ = named.partition("://")
    if not separator:
        _need("fsspec")
        return _open_folder(Path(named), quarantine)
    if scheme == "s3":
        _need("s3fs")
        return _open_s3(named, settings, quarantine)
    if scheme == "sftp":
        _need("sshfs")
        return _open_sftp(named, settings, quarantine)
    raise SourceUnknown(f"SOURCE: {scheme}:// is no store that can be swept; write {_FORMS}")


def _open_pict_rs(tenant: str, of: TenantSettings, quarantine: str | None) -> Source:
    if of.pict_rs is None or of.pict_rs_api_key is None:
        missing = "pict_rs" if of.pict_rs is None else "pict_rs_api_key"
        raise SourceUnknown(
            f"tenants.{tenant}.{missing} is not set, so its pict-rs cannot be swept; or name another SOURCE: {_FORMS}"
        )
    if quarantine is not None:
        raise SourceUnknown(
            "--quarantine: nothing can be moved within a pict-rs; leave it out to report only, or use --apply to purge"
        )
    return PictRsSource(of.pict_rs, of.pict_rs_api_key.get_secret_value())


def _open_folder(folder: Path, quarantine: str | None) -> Source:
    from fediwarden.sweep.files import FolderSource

    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise SourceUnknown(f"SOURCE: there is no folder {folder}; write {_FORMS}")
    place = _beside(str(folder), quarantine, root="/")
    return FolderSource(folder, host=socket.gethostname(), quarantine=place)


def _open_s3(named: str, settings: SweepSettings, quarantine: str | None) -> Source:
    from fediwarden.sweep.files import S3Source

    parts = urlsplit(named)
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise SourceUnknown(
            f"SOURCE: write s3://bucket or s3://bucket/prefix, without anything else; the key goes into"
            f" sweep.s3_key_id and sweep.s3_secret ({_variable('s3_secret')}), the address into sweep.s3_endpoint"
        )
    bucket, prefix = parts.netloc, parts.path.strip("/")
    client: dict[str, object] = {
        "connect_timeout": _CONNECT_WITHIN_S,
        "read_timeout": _READ_WITHIN_S,
        "retries": {"max_attempts": 2},
    }
    options: dict[str, object] = {"default_block_size": _BLOCK_BYTES, "config_kwargs": client}
    if settings.s3_endpoint:
        options["endpoint_url"] = settings.s3_endpoint
        client["s3"] = {"addressing_style": "path"}  # most have no name for each bucket
    if settings.s3_key_id is not None and settings.s3_secret is not None:
        options["key"] = settings.s3_key_id.get_secret_value()
        options["secret"] = settings.s3_secret.get_secret_value()
    elif settings.s3_key_id is not None or settings.s3_secret is not None:
        missing = "s3_key_id" if settings.s3_key_id is None else "s3_secret"
        raise SourceUnknown(f"sweep.{missing} is not set, and its counterpart is: set both, or neither")
    root = f"{bucket}/{prefix}" if prefix else bucket
    place = _beside(f"/{root}", quarantine, root=f"/{bucket}")
    return S3Source(
        f"s3://{root}",
        f"s3 {settings.s3_endpoint or ''} {root}",
        bucket,
        prefix,
        options,
        quarantine=place and place.removeprefix("/"),
    )


def _open_sftp(named: str, settings: SweepSettings, quarantine: str | None) -> Source:
    from fediwarden.sweep.files import SftpSource

    try:
        parts = urlsplit(named)
        host, port = parts.hostname, parts.port or 22
    except ValueError as error:
        raise SourceUnknown(f"SOURCE: {error}; write sftp://user@host:port/a/folder") from error
    if not host or not parts.path.strip("/"):
        raise SourceUnknown("SOURCE: write sftp://user@host/a/folder, with the folder's whole path")
    if parts.password is not None:
        raise SourceUnknown(
            "SOURCE: a password on the command line can be read by others on this machine, and stays in the shell's"
            f" history: set sweep.sftp_password ({_variable('sftp_password')})"
        )
    options: dict[str, object] = {
        "port": port,
        # sshfs would talk to whoever answers: () is asyncssh's own default, the files of the user and the system.
        "known_hosts": str(settings.sftp_known_hosts.expanduser()) if settings.sftp_known_hosts else (),
        "connect_timeout": _CONNECT_WITHIN_S,
        "login_timeout": _READ_WITHIN_S,
        "keepalive_interval": _READ_WITHIN_S / 3,
        "keepalive_count_max": 3,
    }
    if parts.username is not None:
        options["username"] = unquote(parts.username)
    if settings.sftp_password is not None:
        options["password"] = settings.sftp_password.get_secret_value()
    if settings.sftp_identity is not None:
        identity = settings.sftp_identity.expanduser()
        if not identity.is_file():
            raise SourceUnknown(f"sweep.sftp_identity: there is no file {identity}")
        options["client_keys"] = [str(identity)]
    root = "/" + unquote(parts.path).strip("/")
    place = _beside(root, quarantine, root="/")
    user = f"{parts.username}@" if parts.username else ""
    where = f"{host}:{port}" if port != 22 else host
    return SftpSource(f"sftp://{user}{where}{root}", host, root, options, quarantine=place)


def _beside(swept: str, quarantine: str | None, *, root: str) -> str | None:
    """The whole path of the quarantine. Raises `SourceUnknown` where that is what is swept, or leads out of `root`."""
    if quarantine is None:
        return None
    path = PurePosixPath(quarantine)
    if ".." in path.parts or not path.parts or path.parts == ("/",):
        raise SourceUnknown("--quarantine: write a path of its own, without .., such as quarantine or /srv/quarantine")
    whole = PurePosixPath(swept) / path if not path.is_absolute() else path
    if PurePosixPath(swept).is_relative_to(whole):
        raise SourceUnknown(f"--quarantine: {whole} contains what is swept; name a folder below or beside {swept}")
    if root != "/" and len(whole.parts) < 3:  # "/", the bucket, a prefix
        raise SourceUnknown("--quarantine: write a prefix, or /bucket/prefix")
    return str(whole)


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise MissingExtra(
            f"SOURCE: the package {package} that reads it is not installed: `make sweep`, or {install_command('sweep')}"
        )


def _variable(name: str) -> str:
    return f"FEDIWARDEN_SWEEP__{name.upper()}"
