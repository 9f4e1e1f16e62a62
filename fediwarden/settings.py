"""Every setting of a fediwarden, and where each value came from.

Sources, the first that has a value wins: flags, environment (``FEDIWARDEN_SECTION__NAME``; lists and tables as JSON),
a file for each secret (`fediwarden.secret_files`), the file fediwarden.toml, defaults. An empty environment variable
counts as not set. The file is the one that ``--config`` or ``FEDIWARDEN_CONFIG`` names, else ./fediwarden.toml, else
fediwarden.toml in the data directory.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as EnvironmentError_

from federation_audit.lemmy.settings import LemmySettings
from federation_audit.settings import AuditSettings
from fediwarden.kafka.settings import KafkaSettings
from fediwarden.logs import LogSettings
from fediwarden.metrics.settings import MetricsSettings
from fediwarden.rescan.settings import RescanSettings
from fediwarden.secret_files import (
    SECRETS_VARIABLE,
    SecretFilesError,
    find_secret_files,
    read_secret_file,
    secret_files_source,
)
from fediwarden.sweep.settings import SweepSettings
from gateway.enforcement.settings import EnforcerSettings
from gateway.erasure.settings import ErasureSettings
from gateway.relay.settings import RelaySettings
from gateway.settings import GatewaySettings, TenantSettings
from gateway.tenants import check_tenants
from scanner.models.device import Device
from scanner.settings import ScannerSettings
from schemas.telemetry.tracing import TracingSettings

PREFIX: Final = "FEDIWARDEN_"
DELIMITER: Final = "__"
CONFIG_VARIABLE: Final = "FEDIWARDEN_CONFIG"
FILE_NAME: Final = "fediwarden.toml"
NOT_SETTINGS: Final = frozenset(
    {
        CONFIG_VARIABLE,
        SECRETS_VARIABLE,
        "FEDIWARDEN_REQUIRE_PICTRS",
        "FEDIWARDEN_REQUIRE_PROMTOOL",
        "FEDIWARDEN_REQUIRE_SSHD",
        "FEDIWARDEN_REQUIRE_SYNAPSE",
        "FEDIWARDEN_REQUIRE_BROWSER",
        "FEDIWARDEN_REQUIRE_EXCHANGES",
        "FEDIWARDEN_SCREENSHOTS",
        "FEDIWARDEN_FAULTS",
    }
)
"""Variables with our prefix that are no settings: where settings lie, and switches of the test suite."""

MASK: Final = "********"
_LAST_PORT: Final = 65_535


class SettingsError(Exception):
    """A setting is unknown or wrong, or the file cannot be read; the message names it, its source and the remedy."""


def _xdg(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / fallback) / "fediwarden"


class UpSettings(BaseModel):
    """What `fediwarden up` runs besides Kafka, gateway, scanners and enforcer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audit: bool = Field(
        True, description="Whether it runs the audit: `fediwarden audit record`, and the pages (`fediwarden audit`)."
    )
    lemmy: bool = Field(True, description="Whether it runs `fediwarden lemmy`, where a tenant has a lemmy_database.")
    relay: bool = Field(
        False,
        description="Whether it runs `fediwarden relay` before the pict_rs of each tenant that has one. Lemmy's"
        " pictrs.url has to point to it (docs/relay.md).",
    )


class Settings(BaseSettings):
    """All settings. Made from every source by `load_settings`; keyword arguments count as flags."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # pydantic goes by the outermost model: this holds for every section's secrets
        nested_model_default_partial_update=False,
    )

    data_dir: Path = Field(
        default_factory=lambda: _xdg("XDG_DATA_HOME", ".local/share"),
        description="What must be kept: Kafka's data, the key file, fediwarden.toml if it lies there."
        " Default: $XDG_DATA_HOME/fediwarden (~/.local/share/fediwarden).",
    )
    cache_dir: Path = Field(
        default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache"),
        description="What can be fetched again: Kafka's jars, model weights."
        " Default: $XDG_CACHE_HOME/fediwarden (~/.cache/fediwarden).",
    )
    scanners: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="Scanner processes that `fediwarden up` runs; 0 when all of them run on other machines."
    )
    scanner_devices: tuple[Device, ...] = Field(
        (),
        description="Devices for the scanners of `fediwarden up`, in turn, such as cuda:0 and cuda:1; when empty,"
        " scanner.device for all of them.",
    )
    up: UpSettings = Field(default_factory=UpSettings, description="What `fediwarden up` runs besides.")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The embedded Kafka, or one of your own.")
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="The HTTP side.")
    scanner: ScannerSettings = Field(default_factory=ScannerSettings, description="The side that judges.")
    enforcer: EnforcerSettings = Field(
        default_factory=EnforcerSettings, description="What removes from pict-rs what is rejected too late."
    )
    erasure: ErasureSettings = Field(
        default_factory=ErasureSettings, description="The janitor, which erases judged images from Kafka."
    )
    relay: RelaySettings = Field(
        default_factory=RelaySettings,
        description="What stands between Lemmy and pict-rs, and learns where images come from.",
    )
    audit: AuditSettings = Field(default_factory=AuditSettings, description="What the audit keeps about who sent what.")
    lemmy: LemmySettings = Field(
        default_factory=LemmySettings, description="What asks Lemmy's database where an image was posted."
    )
    sweep: SweepSettings = Field(
        default_factory=SweepSettings, description="Sweeps over what was stored before fediwarden came."
    )
    tenants: dict[str, TenantSettings] = Field(
        default_factory=lambda: {"default": TenantSettings()},
        description="Who may post images, by name. Default: one tenant, without a key, from loopback.",
    )
    rescan: RescanSettings = Field(
        default_factory=RescanSettings, description="Judging again what was judged before (docs/replay.md)."
    )
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")
    metrics: MetricsSettings = Field(
        default_factory=MetricsSettings, description="Metrics of the processes that have no HTTP of their own."
    )
    tracing: TracingSettings = Field(default_factory=TracingSettings, description="Traces of single images.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, files of secrets, the settings' file: in this order."""
        assert isinstance(init_settings, InitSettingsSource)
        file = settings_file(init_settings.init_kwargs)
        sources: tuple[PydanticBaseSettingsSource, ...] = (
            init_settings,
            env_settings,
            secret_files_source(settings_cls, PREFIX),
        )
        return sources if file is None else (*sources, TomlConfigSettingsSource(settings_cls, toml_file=file))

    @field_validator("data_dir", "cache_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        check_tenants(self.tenants)
        if (
            "tenants" in self.model_fields_set
        ):  # a scanner on another machine has policies for tenants it is not told of
            _check_policies(self.scanner.policies, self.tenants)
        if "models_dir" not in self.scanner.model_fields_set:
            scanner = self.scanner.model_copy(update={"models_dir": self.cache_dir / "models"})
            object.__setattr__(self, "scanner", scanner)  # frozen for everyone else
        if self.gateway.spool_dir is None:
            gateway = self.gateway.model_copy(update={"spool_dir": self.data_dir / "spool"})
            object.__setattr__(self, "gateway", gateway)
        if self.gateway.lists.folder is None:
            lists = self.gateway.lists.model_copy(update={"folder": self.data_dir / "lists"})
            object.__setattr__(self, "gateway", self.gateway.model_copy(update={"lists": lists}))
        if self.gateway.port and "port" not in self.audit.pages.model_fields_set:
            # Beside the gateway's, so that two on one machine need to be told of one port each.
            port = self.gateway.port + (1 if self.gateway.port < _LAST_PORT else -1)
            pages = self.audit.pages.model_copy(update={"port": port})
            object.__setattr__(self, "audit", self.audit.model_copy(update={"pages": pages}))
        if not self.erasure.groups:
            erasure = self.erasure.model_copy(update={"groups": (self.scanner.group,)})
            object.__setattr__(self, "erasure", erasure)
        return self

    @property
    def keys_file(self) -> Path:
        """The keyring that frames are encrypted with."""
        return self.data_dir / "keys.json"

    @property
    def actors_file(self) -> Path:
        """The keys that actors' pseudonyms are made with."""
        return self.data_dir / "actors.json"

    @property
    def audit_database(self) -> str:
        """The audit store's URL. It may hold a password."""
        named = self.audit.database
        return named.get_secret_value() if named else f"sqlite:///{self.data_dir / 'audit.sqlite'}"

    @property
    def models_dir(self) -> Path:
        """Where model weights are kept."""
        assert self.scanner.models_dir is not None, "filled in above"
        return self.scanner.models_dir

    @property
    def gateway_url(self) -> str:
        """Where a program on this machine reaches the gateway."""
        return _local_url(self.gateway.tls.scheme, self.gateway.host, self.gateway.port)

    @property
    def pages_url(self) -> str:
        """Where a program on this machine reaches the audit's pages and its intake of origins."""
        return _local_url(self.audit.pages.tls.scheme, self.audit.pages.host, self.audit.pages.port)

    @property
    def tenant_domains(self) -> dict[str, str]:
        """The domains of our own instances, by tenant, where they are set."""
        return {name: each.domain for name, each in self.tenants.items() if each.domain}

    @property
    def origin_tokens(self) -> dict[str, SecretStr]:
        """The tokens of those who tell origins, by tenant."""
        return {name: each.origins_token for name, each in self.tenants.items() if each.origins_token is not None}

    @property
    def lemmy_databases(self) -> dict[str, SecretStr]:
        """The databases to ask for origins, by tenant."""
        return {name: each.lemmy_database for name, each in self.tenants.items() if each.lemmy_database is not None}


def _local_url(scheme: str, host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _check_policies(policies: Mapping[str, Path], tenants: Mapping[str, TenantSettings]) -> None:
    """Raise ValueError, naming the setting, where a policy is for a tenant that is not there: nobody would miss it."""
    for name in policies:
        if name not in tenants:
            close = get_close_matches(name, tenants, n=1, cutoff=0.5)
            raise ValueError(
                f"scanner.policies.{name}: there is no tenant {name!r}; "
                + (f"did you mean {close[0]}?" if close else f"the tenants are {', '.join(sorted(tenants))}")
            )


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it holds: its dotted name, its value as text (secrets masked) and the source of it."""

    name: str
    value: str
    source: str


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings from every source. `flags` is nested by section, as the file is. Raises `SettingsError`."""
    given = dict(flags or {})
    _refuse_unknown_variables("environment", os.environ)
    try:
        _refuse_unknown_variables("the file of", find_secret_files(PREFIX))
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(each, given) for each in error.errors())) from error
    except EnvironmentError_ as error:
        names = ", ".join(_unparsable_variables()) or str(error)
        raise SettingsError(f'environment {names}: lists and tables are written as JSON, such as ["a", "b"]') from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{settings_file(given)}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{settings_file(given)}: brackets are nested hundreds deep") from error
    except SecretFilesError as error:
        raise SettingsError(str(error)) from error
    except OSError as error:
        raise SettingsError(f"{settings_file(given)} cannot be read: {error.strerror}") from error


def settings_file(flags: Mapping[str, Any]) -> Path | None:
    """The settings file in force, or None where there is none. Raises `SettingsError` when a named one is missing."""
    if named := os.environ.get(CONFIG_VARIABLE):
        file = Path(named)
        if not file.is_file():
            raise SettingsError(f"there is no file {file}; {CONFIG_VARIABLE} (or --config) names it as the settings")
        return file
    data_dir = flags.get("data_dir") or os.environ.get(f"{PREFIX}DATA_DIR") or _xdg("XDG_DATA_HOME", ".local/share")
    return next((file for file in (Path(FILE_NAME), Path(data_dir) / FILE_NAME) if file.is_file()), None)


def effective_settings(settings: Settings, flags: Mapping[str, Any] | None = None) -> list[Effective]:
    """Every setting with its value and source, in the order of declaration."""
    given = dict(flags or {})
    file = settings_file(given)
    from_environment = EnvSettingsSource(Settings)()
    secret_files = find_secret_files(PREFIX)
    from_secrets = secret_files_source(Settings, PREFIX)()
    from_file = TomlConfigSettingsSource(Settings, toml_file=file)() if file else {}

    def source(path: tuple[str, ...]) -> str:
        if _has(given, path):
            return "flag"
        if _has(from_environment, path):
            return f"environment {_variable(path)}"
        if _has(from_secrets, path):
            return f"file {secret_files[_variable(path, secret_files)]}"
        if _has(from_file, path):
            return f"file {file}"
        return "default"

    return [Effective(".".join(path), _shown(value), source(path)) for path, value in _leaves(settings)]


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give a child process the settings which differ from the defaults. They carry secrets."""
    variables: dict[str, str] = {}
    for path, value in _leaves(settings, only_set=True):
        if value is not None:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            variables[_variable_name(path)] = _as_variable(plain)
    return variables


def declared_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting there is: its dotted name (a tenant's as ``tenants.<name>.key``) and its declaration."""
    yield from _declared(Settings, ())


def _declared(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section, in_between = _section(field.annotation)
        if section is None:
            yield ".".join((*path, name)), field
        else:
            yield from _declared(section, (*path, name, *in_between))


def _section(annotation: object) -> tuple[type[BaseModel] | None, tuple[str, ...]]:
    """The model that a section holds, and the name in between where it is a table of such models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ()
    if get_origin(annotation) is dict and issubclass(get_args(annotation)[1], BaseModel):
        return get_args(annotation)[1], ("<name>",)
    return None, ()


def _leaves(
    model: BaseModel, path: tuple[str, ...] = (), *, only_set: bool = False
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if only_set and name not in model.model_fields_set:
            continue
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*path, name), only_set=only_set)
        elif isinstance(value, dict) and _section(type(model).model_fields[name].annotation)[0] is not None:
            for key, each in value.items():
                yield from _leaves(each, (*path, name, key), only_set=only_set)
        else:
            yield (*path, name), value


def _has(tree: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if isinstance(tree, BaseModel):
            return True
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    return _as_variable(value)


def _as_variable(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list | set | frozenset):
        return json.dumps([each if isinstance(each, int | float) else str(each) for each in value])
    if isinstance(value, dict):
        return json.dumps({key: str(each) for key, each in value.items()})
    return str(value)


def _variable_name(path: tuple[str, ...]) -> str:
    return PREFIX + DELIMITER.join(path).upper()


def _variable(path: tuple[str, ...], among: Iterable[str] | None = None) -> str:
    """The variable that is really there: the setting's own, or that of a section given as JSON."""
    there = {name.upper() for name in (os.environ if among is None else among)}
    names = [_variable_name(path[:length]) for length in range(len(path), 0, -1)]
    return next((name for name in names if name in there), names[0])


def _refuse_unknown_variables(where: str, names: Iterable[str]) -> None:
    for name in names:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in NOT_SETTINGS:
            continue
        section, within, _ = upper.removeprefix(PREFIX).partition(DELIMITER)
        field = Settings.model_fields.get(section.lower())
        # pydantic-settings passes over what is written below a setting that is no section.
        if field is None or (within and _section(field.annotation)[0] is None):
            known = {_variable_name(tuple(path.split("."))) for path, _ in declared_settings()} | NOT_SETTINGS
            raise SettingsError(f"{where} {name}: unknown setting{_did_you_mean(upper, known)}")


def _unparsable_variables() -> Iterator[str]:
    """Which variables and files pydantic-settings cannot parse; its own error names only the section."""
    files = {name: read_secret_file(file) for name, file in find_secret_files(PREFIX).items()}
    for name, value in (*os.environ.items(), *files.items()):
        if name.upper().startswith(PREFIX):
            source = EnvSettingsSource(Settings)
            source.env_vars = {name.lower(): value}
            try:
                source()
            except EnvironmentError_:
                yield name


def _explain(error: Any, flags: Mapping[str, Any]) -> str:
    """One fault in words: which setting, from which source, what is wrong. Values are left out: they may be secret."""
    path = tuple(str(part) for part in error["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    name = ".".join(path) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{name} ({_origin(path, flags)}): unknown setting{_did_you_mean(name, _known_beside(path))}"
    said = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("tuple_type", "list_type", "dict_type"):
        said += ', as JSON in the environment: ["a", "b"]'
    return f"{name} ({_origin(path, flags)}): {said[:1].lower()}{said[1:]}" if path else said


def _origin(path: tuple[str, ...], flags: Mapping[str, Any]) -> str:
    if _has(flags, path):
        return "a flag"
    if any(_variable_name(path[:length]) in {n.upper() for n in os.environ} for length in range(1, len(path) + 1)):
        return f"environment {_variable(path)}"
    # A section that was checked as a whole may have its parts anywhere.
    if any(name.upper().startswith(_variable_name(path) + DELIMITER) for name in os.environ):
        return f"environment {_variable_name(path)}{DELIMITER}*"
    secret_files = find_secret_files(PREFIX)
    if (secret := secret_files.get(_variable(path, secret_files))) is not None:
        return str(secret)
    file = settings_file(flags)
    return str(file) if file else "defaults"


def _known_beside(path: tuple[str, ...]) -> set[str]:
    """The dotted names of all settings, with the names of tables (tenants) filled in from `path`."""
    known = set(Settings.model_fields)
    for name, _ in declared_settings():
        parts = name.split(".")
        known.add(
            ".".join(have if want == "<name>" else want for want, have in zip(parts, path, strict=False))
            if len(parts) == len(path)
            else name
        )
    return known


def _did_you_mean(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "; `fediwarden settings` lists what there is"
