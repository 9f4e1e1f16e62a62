"""Whose token it is that Lemmy forwards."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.tokens import Claims, claims_of


def token(claims: object) -> bytes:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return b"eyJhbGciOiJIUzI1NiJ9." + part + b".c2lnbmF0dXJl"


ALICE = token({"sub": "17", "iss": "lemmy.example", "iat": 1})
BOB = token({"sub": "18", "iss": "lemmy.example", "iat": 1})


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + ALICE)],
        [(b"authorization", b"bearer  " + ALICE + b" ")],
        [(b"cookie", b"theme=dark; jwt=" + ALICE + b"; x=y")],
        [(b"authorization", b"Bearer " + ALICE), (b"cookie", b"jwt=" + BOB)],
        [(b"authorization", b"Bearer " + ALICE), (b"authorization", b"Bearer " + ALICE)],
        [(b"authorization", b"Basic eDp5"), (b"cookie", b"jwt=" + ALICE)],
    ],
)
def test_the_user_is_read_from_the_header_and_else_from_the_cookie(headers: list[tuple[bytes, bytes]]) -> None:
    assert claims_of(headers) == Claims("17", "lemmy.example")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer " + ALICE), (b"authorization", b"Bearer " + BOB)],
        [(b"cookie", b"jwt=" + ALICE + b"; jwt=" + BOB)],
        [(b"authorization", b"Bearer abc")],
        [(b"authorization", b"Bearer a.b.c")],
        [(b"authorization", b"Bearer a.%ff.c")],
        [(b"authorization", b"Bearer " + token([1]))],
        [(b"authorization", b"Bearer " + token({}))],
        [(b"authorization", b"Bearer " + token({"sub": ""}))],
        [(b"authorization", b"Bearer " + token({"sub": True}))],
        [(b"authorization", b"Bearer " + token({"sub": ["17"]}))],
        [(b"authorization", b"Bearer " + token({"sub": "1" * 65}))],
        [(b"authorization", b"Bearer " + token({"sub": "17", "iss": 5}))],
        [(b"authorization", b"Bearer " + token({"sub": "17", "more": "x" * 9000}))],
        [(b"authorization", b"Bearer " + b"\xff.\xff.\xff")],
    ],
)
def test_what_is_not_one_users_token_is_nobodys(headers: list[tuple[bytes, bytes]]) -> None:
    assert claims_of(headers) is None


def test_a_number_as_user_is_as_good() -> None:
    assert claims_of([(b"authorization", b"Bearer " + token({"sub": 17}))]) == Claims("17", "")


@settings(deadline=None)
@given(name=st.sampled_from([b"authorization", b"cookie"]), value=st.binary(max_size=80), claims=st.text(max_size=40))
def test_no_header_is_too_strange(name: bytes, value: bytes, claims: str) -> None:
    claims_of([(name, value)])
    claims_of([(b"authorization", b"Bearer a." + base64.urlsafe_b64encode(claims.encode()) + b".c")])
