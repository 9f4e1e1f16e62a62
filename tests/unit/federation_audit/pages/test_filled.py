"""Pages over the invented fediverse."""

from tests.fediverse import LEVELS
from tests.pages import running_pages


def test_a_filled_fediverse_has_the_levels_that_it_says(tmp_path):
    with running_pages(tmp_path, filled=True) as pages:
        assessed = pages.site.assessor.newest()
    found = {each.instance: int(each.level) for each in assessed.assessment if each.level}
    assert found == LEVELS
