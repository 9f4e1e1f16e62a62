"""What makes the tests' videos leaves the process that makes them as it was."""

import os

from tests import pictures


def test_an_encoder_does_not_put_this_process_before_all_others() -> None:
    before = os.sched_getscheduler(0)
    assert pictures.make("mp4-av1", seed=4711)
    assert os.sched_getscheduler(0) == before
