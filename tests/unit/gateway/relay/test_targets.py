"""Which requests tell where an image comes from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.targets import URL_MOST, Aim, Way, aim_of
from schemas.domains import domain_of


@pytest.mark.parametrize(
    ("method", "path", "query", "way"),
    [
        ("POST", "/image", b"", Way.UPLOAD),
        ("POST", "/image", b"resize=512", Way.UPLOAD),
        ("POST", "/image/backgrounded", b"", Way.UPLOAD_BACKGROUNDED),
        ("POST", "/internal/import", b"", Way.IMPORT),
        ("GET", "/image/backgrounded/claim", b"upload_id=9f", Way.CLAIM),
        ("GET", "/image/download", b"url=https://a.example/b.png", Way.DOWNLOAD),
        ("GET", "/image/original", b"proxy=https://a.example/b.png", Way.PROXY),
        ("HEAD", "/image/original", b"proxy=https://a.example/b.png", Way.PROXY),
        ("GET", "/image/process.webp", b"thumbnail=96&proxy=https://a.example/b.png", Way.PROXY),
        ("GET", "/image/process_backgrounded.webp", b"proxy=https://a.example/b.png", Way.PROXY),
        ("GET", "/image/details/original", b"proxy=https://a.example/b.png", Way.PROXY),
        ("GET", "/image/details/process.webp", b"proxy=https://a.example/b.png", Way.PROXY),
    ],
)
def test_what_tells_something_is_known_by_its_path(method: str, path: str, query: bytes, way: Way) -> None:
    aim = aim_of(method, path, query)
    assert aim is not None
    assert aim.way is way


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/image", b""),
        ("GET", "/image/original/a.png", b""),
        ("GET", "/image/original", b"alias=a.png"),
        ("GET", "/image/process.webp", b"src=a.png"),
        ("GET", "/image/backgrounded/claim", b""),
        ("GET", "/image/delete/t/a.png", b"proxy=https://a.example/b"),
        ("POST", "/internal/purge", b"proxy=https://a.example/b"),
        ("POST", "/image/original", b"proxy=https://a.example/b"),
        ("GET", "/healthz", b""),
        ("GET", "/image/original", b"proxy="),
        ("GET", "/image/original", b"proxy=ftp://a.example/b"),
        ("GET", "/image/original", b"proxy=https%3A%2F%2F"),
        ("GET", "/image/original", b"proxy=https://a.example:port/"),
        ("GET", "/image/original", b"proxy=https://a.example/" + b"a" * 5000),
        ("GET", "/image/original", b"proxy=https%3A%2F%2F%5B"),
        ("GET", "/image/original", b"&&=&proxy"),
    ],
)
def test_everything_else_tells_nothing(method: str, path: str, query: bytes) -> None:
    assert aim_of(method, path, query) is None


@pytest.mark.parametrize(
    ("query", "url"),
    [
        (b"proxy=https%3A%2F%2FA.example%2Fb%20c.png%3Fd%3De%26f%3Dg", "https://A.example/b c.png?d=e&f=g"),
        (b"proxy=https%3a%2f%2fa.example%2fb+c", "https://a.example/b c"),
        (b"proxy=https://a.example/b?c=d&e=f", "https://a.example/b?c=d&e=f"),
        (b"proxy=https://a.example/b%20c?d=%26", "https://a.example/b%20c?d=%26"),
        (b"proxy=https://a.example/b?c=d&e=f&thumbnail=256", "https://a.example/b?c=d&e=f"),
        (b"proxy=https://a.example/b?c&d=&e=f&blur=3&g=h", "https://a.example/b?c&d&e=f"),
        (b"thumbnail=96&proxy=https%3A%2F%2Fa.example%2Fb&x=y", "https://a.example/b"),
        (b"proxy=https%3A%2F%2Fone.example%2F&proxy=https%3A%2F%2Ftwo.example%2F", "https://one.example/"),
        (b"proxy=HTTPS://a.example/b", "HTTPS://a.example/b"),
        (b"proxy=https%3A%2F%2Fme%3Asecret%40a.example%3A8443%2Fb", "https://a.example:8443/b"),
    ],
)
def test_the_address_is_the_one_that_lemmy_knows_encoded_or_not(query: bytes, url: str) -> None:
    aim = aim_of("GET", "/image/original", query)
    assert aim is not None
    assert aim.url == url
    assert aim.original


def test_only_a_get_of_the_original_brings_the_stored_file_itself() -> None:
    query = b"proxy=https://a.example/b"
    aims = [aim_of("HEAD", "/image/original", query), aim_of("GET", "/image/process.webp", query)]
    assert [aim is not None and aim.original for aim in aims] == [False, False]


def test_a_claim_names_its_upload() -> None:
    aim = aim_of("GET", "/image/backgrounded/claim", b"upload_id=01-ab")
    assert aim == Aim(Way.CLAIM, upload_id="01-ab")


@settings(deadline=None)
@given(
    parameter=st.sampled_from([b"", b"proxy=", b"proxy=http://", b"proxy=https%3A%2F%2F", b"proxy=http://[", b"&=&"]),
    rest=st.binary(max_size=60),
)
def test_no_query_is_too_strange(parameter: bytes, rest: bytes) -> None:
    aim = aim_of("GET", "/image/original", parameter + rest)
    if aim is not None:
        assert len(aim.url) <= URL_MOST
        assert domain_of(aim.url)
        aim.url.encode()
