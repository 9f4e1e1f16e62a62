"""Two tenants on one fediwarden: what one says of an image is not what the other says."""

from federation_audit.store.engine import Store
from federation_audit.store.queries import read_incidents, read_instance
from schemas.messages import Decision
from tests.stores import content, judged, seen, write


def test_the_same_place_seen_by_two_tenants_is_two_origins(store: Store) -> None:
    """The same post, the same bytes, address and author, on two Lemmys of ours."""
    post = "https://bad.example/post/1"
    one, other = (
        seen(1, "bad.example", actor="mallory", url="https://img.example/a.png", post=post, tenant=tenant, at=at)
        for tenant, at in (("first", 1_728_043_200_000), ("second", 1_728_043_200_001))
    )
    assert one.origin_id != other.origin_id
    verdicts = [judged(1, Decision.REVIEW, tenant=tenant) for tenant in ("first", "second")]
    write(store, [*verdicts, one, other])
    with store.reading() as connection:
        assert read_instance(connection, "bad.example").now.exposed == 2  # a medium is a tenant's file
        assert len(read_incidents(connection, "bad.example")) == 1  # one actor, day and look, whoever saw it
    before = content(store)
    write(store, [other, one])
    assert content(store) == before


def test_an_address_does_not_join_what_two_tenants_have_under_it(store: Store) -> None:
    url = "https://img.example/a.png"
    write(
        store,
        [
            judged(1, Decision.REVIEW, tenant="first"),
            judged(2, Decision.REVIEW, tenant="second"),
            seen(1, url=url, tenant="first"),
            seen(2, url=url, tenant="second"),
            seen(None, "bad.example", actor="mallory", url=url, tenant="first"),
        ],
    )
    with store.reading() as connection:
        assert read_instance(connection, "bad.example").now.exposed == 1
