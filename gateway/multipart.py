"""The one file of a multipart/form-data body, taken out of the stream while it arrives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_PARTS_MOST = 32
_HEADER_MOST_BYTES = 8 << 10

Piece = bytes | memoryview


class MultipartFile:
    """Feeds on the body's pieces and gives back the bytes of its one file (RFC 7578).

    A part is a file when its Content-Disposition has a file name; the name itself and every other field are ignored.
    Lines without text may precede the first boundary, and nothing else.
    Raises `Refusal` from the constructor, `feed` and `finish`: malformed_multipart, no_file, several_files.
    """

    def __init__(self, content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise _malformed("the Content-Type names no boundary", field="content-type")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks, max_header_size=_HEADER_MOST_BYTES)
        except FormParserError as error:
            raise _malformed(str(error), field="content-type") from error
        self._name = b""
        self._value = b""
        self._part_is_file = False
        self._parts = 0
        self._files = 0
        self._begun = False
        self._ended = False
        self._pieces: list[Piece] = []

    def feed(self, data: bytes) -> Sequence[Piece]:
        """What of `data` belongs to the file."""
        self._pieces = []
        if not self._begun:
            # After a line break the parser passes over anything, and how much hangs on where the pieces were cut.
            data = data.lstrip(b"\r\n")
            self._begun = bool(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from error
        return self._pieces

    def finish(self) -> None:
        """Check that the body was complete and had a file."""
        if not self._ended:
            raise _malformed("the body ends before its last boundary")
        if not self._files:
            raise Refusal(
                RefusalCode.NO_FILE,
                "the form holds no file",
                field="body",
                remedy="send one part whose Content-Disposition has a filename, or the bytes alone as the body",
            )

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS_MOST:
            raise _malformed(f"the form has more than {_PARTS_MOST} parts")
        self._part_is_file = False
        self._name = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            parameters = parse_options_header(self._value)[1]
            # The parser drops filename*=, which some clients send alone for a name that is not ASCII.
            self._part_is_file = b"filename" in parameters or b"filename*=" in self._value.lower()
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        if not self._part_is_file:
            return
        self._files += 1
        if self._files > 1:
            raise Refusal(
                RefusalCode.SEVERAL_FILES,
                "the form holds several files",
                field="body",
                remedy="send one file a request",
            )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part_is_file:
            self._pieces.append(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _malformed(message: str, *, field: str = "body") -> Refusal:
    return Refusal(
        RefusalCode.MALFORMED_MULTIPART,
        f"no valid multipart/form-data: {message}",
        field=field,
        remedy="send multipart/form-data as RFC 7578 describes it, or the bytes alone as the body",
    )
