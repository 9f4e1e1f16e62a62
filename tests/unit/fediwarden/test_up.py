"""What `up` tells its scanners."""

from pathlib import Path

from fediwarden.settings import Settings, environment_of
from fediwarden.up import settings_of_scanner
from scanner.settings import ScannerSettings

VARIABLE = "FEDIWARDEN_SCANNER__INSTANCE"


def test_every_scanner_of_every_up_has_a_name_of_its_own_that_stays_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.gethostname", lambda: "häuschen (1)")

    def name(place: Path, scanner: str) -> str:
        return environment_of(settings_of_scanner(Settings(data_dir=place), scanner, 0))[VARIABLE]

    names = [name(tmp_path / place, scanner) for place in ("a", "b") for scanner in ("scanner-1", "scanner-2")]
    assert len(set(names)) == 4
    assert all(ScannerSettings(instance=each).instance == each for each in names)
    assert name(tmp_path / "a", "scanner-1") == names[0]


def test_a_name_from_the_settings_is_told_apart_for_each_scanner(tmp_path):
    settings = Settings(data_dir=tmp_path, scanner=ScannerSettings(instance="attic"))
    assert environment_of(settings_of_scanner(settings, "scanner-2", 1))[VARIABLE] == "attic-scanner-2"


def test_scanners_take_the_devices_in_turn(tmp_path):
    def devices(**settings: object) -> list[str | None]:
        given = Settings(data_dir=tmp_path, **settings)
        environments = [environment_of(settings_of_scanner(given, f"scanner-{n}", n)) for n in range(3)]
        return [environment.get("FEDIWARDEN_SCANNER__DEVICE") for environment in environments]

    assert devices(scanner_devices=("cuda:0", "cuda:1")) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices(scanner=ScannerSettings(device="cuda")) == ["cuda", "cuda", "cuda"]
    assert devices() == [None, None, None]
