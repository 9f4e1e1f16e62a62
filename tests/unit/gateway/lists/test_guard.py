from hypothesis import given
from hypothesis import strategies as st

from gateway.lists.guard import MatchRate


def image(number: int) -> bytes:
    return number.to_bytes(32)


def test_a_list_is_named_once_it_matches_more_than_its_share_of_enough_images() -> None:
    rate = MatchRate(share=0.05, images=100, window=1000)
    for number in range(95):
        assert rate.note(image(number), []) == []
    named = [rate.note(image(number), ["poisoned"]) for number in range(95, 102)]
    # Five of a hundred are not too many; six are.
    assert named == [[], [], [], [], [], ["poisoned"], ["poisoned"]]
    assert (rate.matched("poisoned"), rate.images) == (7, 102)


def test_the_same_image_counts_once_however_often_it_is_sent() -> None:
    rate = MatchRate(share=0.05, images=10, window=100)
    for number in range(40):
        rate.note(image(number), [])
    for _ in range(50):
        assert rate.note(image(1), ["popular"]) == []
    assert rate.matched("popular") == 1


def test_a_list_begins_anew_after_it_was_forgotten() -> None:
    rate = MatchRate(share=0.1, images=10, window=100)
    for number in range(20):
        rate.note(image(number), ["a", "b"])
    rate.forget("a")
    assert (rate.matched("a"), rate.matched("b")) == (0, 20)
    assert rate.note(image(21), ["a"]) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.sets(st.sampled_from("abc"))), max_size=200), st.integers(10, 20))
def test_the_counts_are_those_of_the_window(notes: list[tuple[int, set[str]]], window: int) -> None:
    rate = MatchRate(share=0.5, images=10, window=window)
    seen: dict[int, set[str]] = {}
    for number, names in notes:
        rate.note(image(number), names)
        seen[number] = seen.get(number, set()) | names
        while len(seen) > window:
            del seen[next(iter(seen))]
    assert rate.images == len(seen)
    for name in "abc":
        assert rate.matched(name) == sum(name in names for names in seen.values())
