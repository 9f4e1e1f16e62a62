"""Tables as files: JSON and CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
import json
from typing import Any

from starlette.responses import Response

from federation_audit.neutralising import guard_field
from federation_audit.pages.cells import as_field, as_plain, is_number
from federation_audit.pages.table import Format, Links, Rows, Table


def export(kind: Format, table: Table[Any], rows: Rows[Any], links: Links) -> Response:
    """The file. What is beyond the part that was asked for is linked to (Link: rel=next; in JSON also ``next``)."""
    selection = links.selection
    rest = rows.total > selection.start + len(rows.rows)
    following = links.exported(kind, selection.page + 1) if rest else None
    body = _json(table, rows, following) if kind == "json" else _csv(table, rows)
    media = "application/json" if kind == "json" else "text/csv; charset=utf-8; header=present"
    headers = {"content-disposition": f'{"inline" if kind == "json" else "attachment"}; filename="{table.name}.{kind}"'}
    if following:
        headers["link"] = f'<{following}>; rel="next"'
    return Response(body, media_type=media, headers=headers)


def _json(table: Table[Any], rows: Rows[Any], following: str | None) -> bytes:
    found = [{column.key: as_plain(column.cell(row)) for column in table.columns} for row in rows.rows]
    document = {"table": table.name, "total": rows.total, "rows": found, "next": following}
    return json.dumps(document, ensure_ascii=True, allow_nan=False, default=str).encode("ascii")


def _csv(table: Table[Any], rows: Rows[Any]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerow([column.key for column in table.columns])
    for row in rows.rows:
        cells = [column.cell(row) for column in table.columns]
        # A number of ours that is negative is no formula; a spreadsheet shall read it as a number.
        writer.writerow([as_field(each) if is_number(each) else guard_field(as_field(each)) for each in cells])
    return out.getvalue().encode("utf-8", "replace")
