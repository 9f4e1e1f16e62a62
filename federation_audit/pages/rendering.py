"""Templates and static files, read once; static files are named by their content, so that browsers may keep them."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from federation_audit.pages import figures
from federation_audit.pages.cells import as_html, is_number
from federation_audit.pages.text import show_text

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_DIGEST = 16


@cache
def environment() -> Environment:
    """The templates, with what they may call."""
    made = Environment(
        loader=PackageLoader("federation_audit.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=figures.count,
        decimal=figures.decimal,
        share=figures.share,
        said=show_text,
        utc=figures.utc,
    )
    made.globals.update(cell=as_html, is_number=is_number, moment=figures.show_moment, static=static_url)
    return made


def render(template: str, context: Mapping[str, Any]) -> Markup:
    """The page. Whatever `context` holds is escaped unless it is Markup."""
    return Markup(environment().get_template(template).render(context))  # noqa: S704  # autoescape is on


@cache
def _static() -> dict[str, tuple[bytes, str, str]]:
    found = {}
    for file in files("federation_audit.pages").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            found[file.name] = (content, hashlib.sha256(content).hexdigest()[:_DIGEST], kind)
    return found


def static_url(name: str) -> str:
    """Where the file is, such as ``/static/0123456789abcdef/style.css``."""
    return f"/static/{_static()[name][1]}/{name}"


async def give_static(request: Request) -> Response:
    """The file of a path that `static_url` made."""
    found = _static().get(request.path_params["name"])
    if found is None or found[1] != request.path_params["digest"]:
        return Response("There is no such file. Reload the page.", 404, media_type="text/plain")
    return Response(found[0], media_type=found[2], headers={"cache-control": "private, max-age=31536000, immutable"})
