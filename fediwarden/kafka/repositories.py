"""Which Maven repositories to ask: the mirrors that this machine is set up for, then Maven Central."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree


def list_repositories(configured: Mapping[str, str] | None = None, settings_xml: Path | None = None) -> list[str]:
    """The repositories to ask, in order: Maven's mirrors of central, jgo's own (`configured`), Maven Central.

    Mirrors are read from `settings_xml`, by default ``~/.m2/settings.xml``
    (https://maven.apache.org/guides/mini/guide-mirror-settings.html); a file that is no XML is passed over.
    """
    from jgo.constants import MAVEN_CENTRAL_URL

    found = _read_mirrors(settings_xml or Path.home() / ".m2" / "settings.xml")
    found += [url.rstrip("/") for url in (configured or {}).values()]
    found.append(str(MAVEN_CENTRAL_URL))
    return list(dict.fromkeys(found))


def _read_mirrors(settings_xml: Path) -> list[str]:
    try:
        root = ElementTree.parse(settings_xml).getroot()  # noqa: S314 - the user's own configuration file
    except (OSError, ElementTree.ParseError):
        return []
    mirrors = []
    for mirror in root.iterfind(".//{*}mirror"):
        of = (mirror.findtext("{*}mirrorOf") or "").split(",")
        url = (mirror.findtext("{*}url") or "").strip().rstrip("/")
        blocked = (mirror.findtext("{*}blocked") or "").strip() == "true"
        mirrors_central = any(term.strip() in ("*", "central", "external:*") for term in of)
        if url and mirrors_central and "!central" not in of and not blocked:
            mirrors.append(url)
    return mirrors


def without_credentials(url: str) -> str:
    """A repository's address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
