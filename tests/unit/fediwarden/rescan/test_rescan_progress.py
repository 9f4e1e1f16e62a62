"""What is done and left is what the group has committed, and rates are those of the last half minute."""

import pytest

from fediwarden.cli.rescan import pace_of
from schemas.broker import Partition
from schemas.rescan_progress import Meter, Progress, count_done
from schemas.topics import VERDICTS

ONE, TWO = Partition(VERDICTS, 0), Partition(VERDICTS, 1)


@pytest.mark.parametrize(
    ("committed", "log_begins", "done"),
    [
        ({}, {}, 0),
        ({ONE: 100, TWO: 50}, {}, 0),
        ({ONE: 130, TWO: 50}, {}, 30),
        ({ONE: 900, TWO: 900}, {}, 150),
        ({ONE: 3}, {}, 0),
        ({}, {ONE: 120, TWO: 400}, 70),
    ],
    ids=["nothing", "begun", "some", "beyond the end", "before the begin", "deleted meanwhile"],
)
def test_done_is_what_is_committed_or_gone(
    committed: dict[Partition, int], log_begins: dict[Partition, int], done: int
) -> None:
    assert count_done({ONE: (100, 200), TWO: (50, 100)}, committed, log_begins) == done


def test_the_rate_forgets_what_was_long_ago() -> None:
    meter = Meter()
    assert meter.note(Progress(0, 1000, 0)).rate is None
    assert meter.note(Progress(100, 1000, 10_000)).rate == 10.0
    later = meter.note(Progress(100, 1000, 60_000))
    assert (later.rate, later.left_s) == (0.0, None)
    assert pace_of(later) == "nothing moves"
    again = meter.note(Progress(700, 1000, 70_000))
    assert again.rate == pytest.approx(10.0), "since the newest look that is half a minute old, or older"
    assert pace_of(again) == "10/s, 0:30 left"
    ended = meter.note(Progress(1000, 1000, 80_000))
    assert (ended.left, ended.left_s, pace_of(ended)) == (0, 0.0, "")
