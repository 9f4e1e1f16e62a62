"""Our format can say what horde-safety says: the same decisions from the same similarities."""

from pathlib import Path

import numpy as np
import pytest

from scanner.policy import load_policy
from schemas.messages import Decision
from tests.unit.scanner.policy import horde_rules

TABLES = 10_000
POLICY = load_policy(Path("horde-parity"), (), ("clip",))


def tables(words: list[str], *, seed: int, decimals: int | None = None) -> list[dict[str, float]]:
    """Similarities round the thresholds (0.19 to 0.26), as pictures give them, a picture's all higher or lower.

    `decimals` rounds them, so that many stand exactly on a threshold.
    """
    random = np.random.default_rng(seed)
    centres = random.uniform(0.13, 0.21, (TABLES, 1))
    values = centres + random.normal(0.0, 0.03, (TABLES, len(words)))
    values = values.clip(0.0, 1.0)
    if decimals is not None:
        values = values.round(decimals)
    return [dict(zip(words, row, strict=True)) for row in values.tolist()]


@pytest.mark.parametrize("decimals", [None, 3])
def test_horde_parity_decides_as_horde_safety_does_on_ten_thousand_tables(decimals: int | None) -> None:
    rejected = 0
    for table in tables(horde_rules.WORDS, seed=5, decimals=decimals):
        wanted = horde_rules.is_csam(table)
        rejected += wanted
        decision = POLICY.judge([{f"clip/{word}": value for word, value in table.items()}]).decision
        assert (decision is Decision.REJECT) == wanted, table
    assert 0.2 < rejected / TABLES < 0.8  # else the tables would show little


@pytest.mark.parametrize("name", [adjustment.name for adjustment in POLICY.adjustments])
def test_each_correction_matters_for_some_of_those_tables(name: str) -> None:
    without = type(POLICY)(
        POLICY.name, "", POLICY.rules, tuple(each for each in POLICY.adjustments if each.name != name), POLICY.concepts
    )
    frames = [{f"clip/{word}": s for word, s in table.items()} for table in tables(horde_rules.WORDS, seed=5)]
    assert any(POLICY.judge([frame]).decision != without.judge([frame]).decision for frame in frames)
