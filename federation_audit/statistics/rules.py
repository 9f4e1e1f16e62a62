"""Every constant of the statistics, in one place, with where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """The constants; the defaults are those of docs/evidence.md and of the simulation that measured them."""

    prevalence: float = 4.29e-5
    """Confirmed bad images among all media: 4.29 in 100,000, as IFTAS reported for its members."""
    tolerance: float = 5.0
    """An innocent instance may have this many times the prevalence."""
    wrong_confirmation: float = 0.01
    """Of falsely flagged incidents, how many two reviewers confirm all the same. Two who err independently once in
    a hundred would give 0.0001; ours read the same row and see no image, so their errors go together."""
    effects: tuple[float, ...] = (3.0, 10.0, 40.0, 150.0, 600.0)
    """How many times worse than innocent a bad instance may be: the e-value bets on each alike."""
    alpha: float = 0.05
    """e-BH: of the instances that are named at a look, at most this share is innocent on average."""
    restrict_e: float = 20.0
    """Level 2. An innocent instance ever reaches it with a chance of at most 1 in 20 (Ville's inequality)."""
    restrict_independent: int = 2
    least_media: int = 200
    """With fewer images, level 1 and level 3 are not given: neither is a share of 30 images."""
    recommend_incidents: int = 3
    recommend_actors: int = 2
    recommend_span_days: int = 7
    """Between the first and the last confirmed incident."""
    answer_days: int = 7
    """Admins who were written to and said nothing for so long count as not answering."""
    half_life_days: float = 90.0
    """Stage A only."""
    ratio: float = 2.0
    """Stage A: flagged this many times as often as is usual..."""
    watch_chance: float = 0.9
    """...with at least this probability."""
    interval: float = 0.9
    """How much of the posterior the shown interval holds."""
    bulk_tail: float = 0.001
    """An instance with so many flagged that the bulk would give as many with less than this chance is no part of it."""
    least_bulk: int = 30
    """With fewer instances of `least_media` images, what is usual cannot be learnt."""
    assumed_shape: float = 2.0
    """The prior's shape while it cannot be learnt: a standard deviation of 71 %. Then nothing follows from stage A."""
    bound: float = 0.95
    """How sure the upper bound of a stratum's false-positive rate is."""


DEFAULT_RULES = Rules()
