"""Speaks to pict-rs as Lemmy does, from a container beside it; prints a line of JSON.

``python uploader.py upload ADDRESS FILE [TOKEN]``, ``python uploader.py fetch ADDRESS ALIAS``
"""

import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

BOUNDARY = "b5f0c3"


def ask(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address: str, file: str, token: str = "") -> dict[str, object]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images[]"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + Path(file).read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, answer = ask(urllib.request.Request(f"{address}/image", body, headers))
    return {"status": status, "body": json.loads(answer)}


def fetch(address: str, alias: str) -> dict[str, object]:
    status, answer = ask(urllib.request.Request(f"{address}/image/original/{alias}"))
    return {"status": status, "sha256": hashlib.sha256(answer).hexdigest()}


if __name__ == "__main__":
    print(json.dumps({"upload": upload, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])))
