"""The reference of every setting, as Markdown, made from the declarations. docs/settings.md holds it."""

import json
from itertools import groupby

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from fediwarden.settings import DELIMITER, PREFIX, declared_settings

BEGIN = "<!-- reference: fediwarden settings --reference -->"
END = "<!-- end of reference -->"


def settings_reference() -> str:
    """One table a section: setting, variable, default, meaning."""
    parts = []
    for section, settings in groupby(declared_settings(), key=lambda pair: _section_of(pair[0])):
        rows = "".join(_row(name, field) for name, field in settings)
        parts.append(f"### {section}\n\n| setting | default | meaning |\n|---|---|---|\n{rows}")
    return "\n".join(parts)


def variable_of(name: str) -> str:
    """The environment variable of a setting, by its dotted name."""
    return PREFIX + DELIMITER.join(part if part.startswith("<") else part.upper() for part in name.split("."))


def _section_of(name: str) -> str:
    return "`[" + name.rpartition(".")[0] + "]`" if "." in name else "Top level"


def _row(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name.rpartition('.')[2]}`<br>`{variable_of(name)}` | {_default(field)} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "(see meaning)"
    default = field.default
    if default is None or default == "":
        return "unset"
    assert not isinstance(default, SecretStr), "a secret has no default"
    if isinstance(default, tuple):
        return f"`{json.dumps(list(default))}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"
