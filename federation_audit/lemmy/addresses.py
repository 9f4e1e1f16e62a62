"""How Lemmy writes an image's address into its tables.

A stored file is ``<base>/pictrs/image/<alias>`` (0.19) or ``<base>/api/v4/image/<alias>`` (1.0). A remote one is its
own address, or, where Lemmy proxies images, ``<base>/api/v3/image_proxy?url=<address>`` (0.19),
``<base>/api/v4/image/proxy?url=<address>`` (1.0; a thumbnail's with ``&max_size=...`` behind it) or
``<base>/api/v4/image_proxy?url=<address>`` (1.0's alphas), the address percent-encoded.
(LemmyNet/lemmy: build_proxied_image_url, PictrsFile.image_url, markdown_rewrite_image_links.)
"""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from schemas.domains import NotADomain, normalise_domain

_STORED = ("/pictrs/image/", "/api/v4/image/")
_PROXIED = ("/api/v3/image_proxy?url=", "/api/v4/image/proxy?url=", "/api/v4/image_proxy?url=")


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write an image's address. `stored`: it is of pict-rs's own file, whatever query follows.

    `exact`: nothing but this image's own embedding is written so (a proxied address, a stored file).
    """

    text: str
    stored: bool = False
    exact: bool = False


def forms_of(base: str, *, alias: str, url: str) -> tuple[Form, ...]:
    """Each way in which the Lemmy at `base` ("https://example.org") may write the image; "" for what is not known."""
    forms = []
    if alias:
        forms += [Form(f"{base}{path}{quote(alias, safe='')}", stored=True, exact=True) for path in _STORED]
    for address in _spellings(url):
        forms.append(Form(address))
        forms += [Form(f"{base}{path}{quote(address, safe='')}", exact=True) for path in _PROXIED]
    return tuple(forms)


def _spellings(url: str) -> tuple[str, ...]:
    """The address, and how Rust's url crate would write it: scheme and host in lower case, hosts as A-labels."""
    if not url:
        return ()
    try:
        parts = urlsplit(url)
        host = normalise_domain(parts.hostname or "")
        port = "" if parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme.lower())) else f":{parts.port}"
        user = parts.netloc.rpartition("@")
        netloc = f"{user[0]}{user[1]}{host}{port}"
        usual = urlunsplit((parts.scheme.lower(), netloc, parts.path or "/", parts.query, parts.fragment))
    except (NotADomain, ValueError):
        return (url,)
    return tuple(dict.fromkeys((url, usual)))
