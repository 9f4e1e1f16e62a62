import pytest

from federation_audit.actors import NotAnActor, normalise_actor
from federation_audit.lemmy.addresses import forms_of


@pytest.mark.parametrize(
    "spelling",
    [
        "https://bücher.example/u/Alice",
        "HTTPS://BÜCHER.example:443/u/Alice",
        " https://xn--bcher-kva.example/u/Alice#k",
    ],
)
def test_spellings_of_one_actor_are_one(spelling: str) -> None:
    assert normalise_actor(spelling) == "https://xn--bcher-kva.example/u/Alice"


def test_actors_that_differ_stay_apart() -> None:
    ids = ["https://a.example/u/x", "https://a.example/u/X", "http://a.example/u/x", "https://a.example:8443/u/x"]
    assert len({normalise_actor(each) for each in ids}) == len(ids)


@pytest.mark.parametrize(
    "text", ["", "mallory", "javascript:alert(1)", "https://a b/u/x", "https://a/\u202e", "x" * 9999]
)
def test_what_is_no_actor_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(NotAnActor) as caught:
        normalise_actor(text)
    assert len(text) < 3 or text not in str(caught.value)


def test_every_form_that_lemmy_writes_is_known() -> None:
    forms = {
        form.text: form for form in forms_of("https://h.example", alias="a.png", url="HTTPS://Img.Example:443/x y")
    }
    assert set(forms) == {
        "https://h.example/pictrs/image/a.png",
        "https://h.example/api/v4/image/a.png",
        "HTTPS://Img.Example:443/x y",
        "https://img.example/x y",
        *(
            f"https://h.example/api/{path}?url={address}"
            for path in ("v3/image_proxy", "v4/image/proxy", "v4/image_proxy")
            for address in ("HTTPS%3A%2F%2FImg.Example%3A443%2Fx%20y", "https%3A%2F%2Fimg.example%2Fx%20y")
        ),
    }
    assert {text for text, form in forms.items() if form.stored} == {
        "https://h.example/pictrs/image/a.png",
        "https://h.example/api/v4/image/a.png",
    }
    assert not forms["https://img.example/x y"].exact
