import importlib

import pytest

from fediwarden.exits import CODES, CONFIGURATION, FAILED, exit_code, is_ours
from fediwarden.settings import SettingsError
from scanner.models.registry import FetchFailed, ModelMissing
from schemas.broker import BrokerUnavailable, TopicsNotReady


@pytest.mark.parametrize("name", CODES)
def test_every_error_with_a_code_of_its_own_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


def test_what_a_person_must_mend_ends_with_78() -> None:
    assert CONFIGURATION == 78
    for error in (SettingsError("x"), TopicsNotReady("x"), ModelMissing("x")):
        assert exit_code(error) == CONFIGURATION


def test_what_may_be_better_the_next_time_ends_with_1() -> None:
    for error in (BrokerUnavailable("x"), FetchFailed("x")):
        assert exit_code(error) == FAILED


def test_an_error_may_name_its_own_code() -> None:
    class Own(Exception):
        exit_code = 2

    assert exit_code(Own()) == 2


def test_only_errors_that_we_declare_are_ours() -> None:
    assert is_ours(BrokerUnavailable("x"))
    assert not is_ours(ValueError("x"))
    assert not is_ours(OSError("x"))
