"""One instance has one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.domains import NotADomain, domain_of, normalise_domain


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Town.Example", "town.example"),
        ("town.example.", "town.example"),
        (" town.example:8443 ", "town.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.7:80", "192.0.2.7"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("expyuzz4wqqyqhjn.onion", "expyuzz4wqqyqhjn.onion"),
        ("user:secret@town.example", "town.example"),
    ],
)
def test_every_spelling_of_a_host_becomes_one(text: str, domain: str) -> None:
    assert normalise_domain(text) == domain
    assert normalise_domain(domain) == domain


@pytest.mark.parametrize(
    "text", ["", ".", " ", "town.example/post", "a b.example", "x" * 64 + ".example", "[::1", "a..b"]
)
def test_what_names_no_host_is_refused_and_shown_shortened(text: str) -> None:
    with pytest.raises(NotADomain):
        normalise_domain(text)


def test_a_long_hostile_text_is_not_repeated_whole() -> None:
    with pytest.raises(NotADomain) as refused:
        normalise_domain("\u202e<script>" * 1000)
    assert len(str(refused.value)) < 600
    assert str(refused.value).isascii()


def test_a_look_alike_is_another_instance() -> None:
    assert normalise_domain("tоwn.example") != "town.example"  # with a Cyrillic o


@pytest.mark.parametrize("url", ["https://Town.example:443/a.jpg", "HTTP://user@town.EXAMPLE/?x#y"])
def test_the_host_of_an_address(url: str) -> None:
    assert domain_of(url) == "town.example"


@pytest.mark.parametrize(
    "url", ["ftp://town.example/", "town.example", "https:///a", "data:image/png;base64,aa", "http://["]
)
def test_an_address_without_a_host_on_the_web_is_refused(url: str) -> None:
    with pytest.raises(NotADomain):
        domain_of(url)


@given(st.text(max_size=80))
def test_whatever_is_given_comes_out_in_our_form_or_is_refused(text: str) -> None:
    try:
        domain = normalise_domain(text)
    except NotADomain:
        return
    assert normalise_domain(domain) == domain
    assert domain == domain.lower() and domain.isascii()
