"""What a scanner loads at its start: what is promoted, or what its settings name when that cannot be."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from fediwarden import exits
from scanner.models.loading import CLASSIFIERS, find_id, labels_of
from scanner.models.model import Model, ModelBroken, ModelError
from scanner.models.registry import ModelMissing, load_registry
from scanner.policy import PolicyError
from scanner.promotion.fitting import check_models, check_policies
from scanner.promotion.promoted import Promoted
from scanner.service import START_AGAIN, Loaded, Shelf, _load_promoted
from scanner.settings import ScannerSettings
from schemas.broker import Received
from schemas.codec import SchemaMissing
from schemas.messages import ModelsPromoted
from schemas.topics import MODELS_PROMOTED
from tests.models import models_dir
from tests.scanners import RED_POLICY
from tests.unit.scanner.stub_models import RedModel


class SecondModel(RedModel):
    name = "second"
    id = "second-1"


def promotion(*models: str, group: str = "g") -> ModelsPromoted:
    return ModelsPromoted(group=group, models=models, promoted_at=1)


def start(
    promoted: ModelsPromoted | None,
    *,
    fails: Exception | None = None,
    checks: Callable[[Sequence[str]], None] = lambda names: None,
) -> Loaded:
    def load(names: Sequence[str]) -> list[Model]:
        if fails is not None and "second" in names:
            raise fails
        return [{"red": RedModel, "second": SecondModel}[name]() for name in names]

    settings = ScannerSettings(models=("red",))
    loaded = asyncio.run(_load_promoted(settings, Shelf(load, checks), promoted, RED_POLICY, asyncio.Event()))
    assert loaded is not None
    return loaded


def names(loaded: Loaded) -> list[str]:
    return [model.name for model in loaded.models]


def test_what_is_promoted_goes_before_the_settings():
    assert names(start(None)) == ["red"]
    assert names(start(promotion("red"))) == ["red"]
    with capture_logs() as logs:
        assert names(start(promotion("red", "second"))) == ["red", "second"]
    assert [each["by"] for each in logs if each["event"] == "models_chosen"] == ["promotion"]


@pytest.mark.parametrize("fails", [ModelError("no room"), ModelBroken("grey picture"), PolicyError("file", "no score")])
def test_what_cannot_be_loaded_leaves_the_settings_models_judging_and_is_not_tried_again(fails):
    promoted = promotion("red", "second")
    with capture_logs() as logs:
        loaded = start(promoted, fails=fails)
    assert (names(loaded), loaded.refused) == (["red"], promoted)
    refused = next(each for each in logs if each["event"] == "promoted_models_refused")
    assert refused["log_level"] == "error"
    assert refused["judging_with"] == ("red",)


def test_what_is_only_missing_is_tried_again_when_it_is_there():
    missing = ModelMissing("run: fediwarden models fetch second")

    def checks(names: Sequence[str]) -> None:
        raise missing

    loaded = start(promotion("second"), fails=missing, checks=checks)
    assert (names(loaded), loaded.refused) == (["red"], None)


def test_a_supervisor_knows_the_status():
    assert START_AGAIN == exits.START_AGAIN
    assert START_AGAIN not in (0, exits.FAILED, exits.USAGE, exits.CONFIGURATION, exits.TRY_AGAIN)


def test_the_ids_and_labels_of_the_registry_are_those_of_the_loaded_models():
    registry = load_registry()
    for name, kind in CLASSIFIERS.items():
        entry = registry.entry(name)
        assert labels_of(entry) == kind.labels
        assert len(find_id(entry)) == 16
    assert len({find_id(entry) for entry in registry.model}) == len(registry.model)


def test_models_fit_where_every_score_of_a_policy_is_given():
    settings = ScannerSettings(models_dir=models_dir())
    check_models(settings, ["safety-s", "open-nsfw"])
    check_policies(settings, ["safety-s", "open-nsfw"])
    with pytest.raises(PolicyError, match=r"rule '.*': no model gives the score 'open-nsfw/nsfw'"):
        check_policies(settings, ["safety-s"])


def test_weights_that_are_not_here_are_named_with_the_remedy(tmp_path):
    with pytest.raises(ModelMissing, match="fediwarden models fetch safety-s"):
        check_models(ScannerSettings(models_dir=tmp_path), ["safety-s"])
    with pytest.raises(ModelError, match="unknown model"):
        check_models(ScannerSettings(models_dir=tmp_path), ["nobody-knows"])


def record(message: ModelsPromoted | None, *, key: str = "g", fault: SchemaMissing | None = None) -> Received:
    return Received(MODELS_PROMOTED, 0, 0, 0, key.encode(), message, fault, 10)


def test_the_newest_promotion_of_a_group_counts_until_it_is_taken_back():
    promoted = Promoted()
    promoted.observe(record(promotion("a")))
    promoted.observe(record(promotion("b")))
    promoted.observe(record(promotion("c", group="other"), key="other"))
    assert promoted.of("g") == promotion("b")
    promoted.observe(record(None, fault=SchemaMissing("no header")))
    promoted.observe(record(promotion("d", group="another")))
    assert promoted.of("g") == promotion("b")
    promoted.observe(record(None))
    assert promoted.of("g") is None
    assert set(promoted.all) == {"other"}
