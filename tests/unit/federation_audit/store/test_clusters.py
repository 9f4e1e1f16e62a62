"""Clusters are connected components, whatever the order in which media come and go."""

from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.store.clusters import DISTANCE_MOST, Clusters
from tests.stores import pdq, sha

looks = st.lists(st.sampled_from([pdq(n, off=off) for n in (1, 2) for off in (0, 20, 31, 32, 62, 64)]), max_size=3)


def components(media: dict[int, list[bytes]]) -> set[frozenset[int]]:
    """By definition: every pair compared, and reached from one another."""
    near = {
        (a, b)
        for a, its in media.items()
        for b, others in media.items()
        if any(
            (int.from_bytes(x, "big") ^ int.from_bytes(y, "big")).bit_count() <= DISTANCE_MOST
            for x in its
            for y in others
        )
    }
    found = set()
    for start in media:
        reached, todo = {start}, [start]
        while todo:
            at = todo.pop()
            fresh = {b for a, b in near if a == at} - reached
            reached |= fresh
            todo += fresh
        found.add(frozenset(reached))
    return found


def clusters_of(clusters: Clusters, media: dict[int, list[bytes]]) -> set[frozenset[int]]:
    return {
        frozenset(other for other in media if clusters.cluster_of(other) == clusters.cluster_of(medium))
        for medium in media
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(looks, max_size=8), st.sets(st.integers(0, 7)), st.booleans())
def test_they_are_the_connected_components_before_and_after_media_go(found, gone, together):
    media = {number: sorted(set(each)) for number, each in enumerate(found)}
    clusters = Clusters()
    names = {number: sha(number) for number in media}
    if together:
        clusters.add(names, [(number, each) for number, its in media.items() for each in its])
    else:
        for number, its in media.items():
            clusters.add({number: names[number]}, [(number, each) for each in its])
    assert clusters_of(clusters, media) == components(media)
    clusters.drop(gone & media.keys(), [])
    left = {number: its for number, its in media.items() if number not in gone}
    assert clusters_of(clusters, left) == components(left)
    shorter = {number: its[1:] for number, its in left.items()}
    clusters.drop(set(), [(number, its[0]) for number, its in left.items() if its])
    assert clusters_of(clusters, shorter) == components(shorter)


def test_the_same_bytes_are_one_cluster_and_the_opposite_of_a_picture_is_not_near_it():
    clusters = Clusters()
    opposite = bytes(255 - byte for byte in pdq(1))
    clusters.add({1: sha(1), 2: sha(1), 3: sha(3), 4: sha(4)}, [(3, pdq(1)), (4, opposite)])
    assert clusters.cluster_of(1) == clusters.cluster_of(2)
    assert len({clusters.cluster_of(number) for number in (1, 3, 4)}) == 3
