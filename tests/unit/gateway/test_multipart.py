"""What of a form is its file, however the body is cut into pieces."""

import pytest

from gateway.multipart import MultipartFile
from gateway.refusals import Refusal, RefusalCode

FORM = b'--b\r\nContent-Disposition: form-data; name="g"; filename="f"\r\n\r\npixels\r\n--b--\r\n'


def read(body: bytes, size: int) -> bytes | RefusalCode:
    form = MultipartFile("multipart/form-data; boundary=b")
    try:
        pieces = [piece for at in range(0, len(body), size) for piece in form.feed(body[at : at + size])]
        form.finish()
    except Refusal as refusal:
        return refusal.code
    return b"".join(pieces)


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n\n\r\n"])
def test_lines_without_text_may_come_first(before: bytes) -> None:
    body = before + FORM
    assert {read(body, size) for size in range(1, len(body) + 1)} == {b"pixels"}


@pytest.mark.parametrize("before", [b"1\r\n", b"\n\r\n1\r\n", b"\r\ntext - and more\r\n", b"\r\n-\r\n"])
def test_anything_else_before_the_first_boundary_is_refused(before: bytes) -> None:
    body = before + FORM
    assert {read(body, size) for size in range(1, len(body) + 1)} == {RefusalCode.MALFORMED_MULTIPART}
