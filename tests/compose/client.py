"""Posts pictures as pict-rs does, from a container on its network: chunked, without a length. A line of JSON for each.

``python client.py ADDRESS FOLDER FIRST LAST [SECONDS_BETWEEN]``: files FIRST to LAST of FOLDER, in their order.
"""

import http.client
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


def post(address: str, data: bytes) -> tuple[int, dict[str, str]]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=8)
    pieces = (data[at : at + 16_384] for at in range(0, len(data), 16_384))
    try:
        connection.request("POST", parts.path, pieces, {"Content-Type": "image/jpeg"}, encode_chunked=True)
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


def main(address: str, folder: str, first: str, last: str, between: str = "0") -> None:
    for path in sorted(Path(folder).iterdir())[int(first) : int(last)]:
        began = time.monotonic()
        line: dict[str, object] = {"file": path.name}
        try:
            status, headers = post(address, path.read_bytes())
            line |= {"status": status, "scan_id": headers.get("x-fediwarden-scan-id")}
            line |= {"answered_by": headers.get("x-fediwarden-answered-by")}
        except (OSError, http.client.HTTPException) as error:
            line |= {"status": 0, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(line | {"seconds": round(time.monotonic() - began, 3)}), flush=True)
        time.sleep(float(between))


if __name__ == "__main__":
    main(*sys.argv[1:])
