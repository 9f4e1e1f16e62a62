"""The demo's directory: nobody else's data, the same demo again, and nothing of the settings of a real instance."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from fediwarden.demo import home as demo_home
from fediwarden.demo import pictures, world
from fediwarden.demo.home import LIST, DemoRefused, Home
from fediwarden.demo.pictures import Motif, draw
from fediwarden.demo.world import CAST, SEED, forbidden_motifs, make_week
from fediwarden.settings import load_settings
from gateway.frames.extract import extract
from gateway.frames.settings import FrameSettings
from gateway.lists.kinds import HashKind
from gateway.lists.loaded import find_hash
from gateway.lists.store import ListStore


@pytest.fixture(autouse=True)
def own_environment():
    with mock.patch.dict(os.environ):
        yield


def begin(folder: Path, images: int | None = None) -> Home:
    return Home.open(folder, seed=SEED, images=images, default_images=2_000)


def test_a_second_start_goes_on_with_the_first(tmp_path):
    first = begin(tmp_path / "demo", 300).completed()
    assert begin(tmp_path / "demo") == begin(tmp_path / "demo", 300) == first
    assert first.is_complete


def test_another_size_is_refused_with_the_remedy(tmp_path):
    begin(tmp_path, 300)
    with pytest.raises(DemoRefused, match="begun with --images 300"):
        begin(tmp_path, 400)


@pytest.mark.parametrize(
    ("changed", "complete"), [("policy", False), ("week", True), ("forbidden", False), ("pictures", True)]
)
def test_a_demo_of_another_world_is_not_gone_on_with(tmp_path, monkeypatch, changed, complete):
    first = begin(tmp_path / "demo", 300)
    if complete:
        first.completed()
    note = (tmp_path / "demo" / "demo.json").read_bytes()
    if changed == "policy":
        policy = tmp_path / "policy.toml"
        policy.write_text(demo_home._POLICY.read_text().replace("at_least = 0.12", "at_least = 0.13"))
        monkeypatch.setattr(demo_home, "_POLICY", policy)
    elif changed == "week":
        *before, last = CAST
        monkeypatch.setattr(world, "CAST", (*before, replace(last, accounts=("somebody", *last.accounts[1:]))))
    elif changed == "forbidden":
        monkeypatch.setattr(demo_home, "forbidden_motifs", lambda: [*forbidden_motifs(), Motif(999, forbidden=True)])
    else:
        monkeypatch.setattr(pictures, "_FRAME_MS", 251)
    with pytest.raises(DemoRefused, match=r"another week, other pictures or another policy .* --data-dir"):
        begin(tmp_path / "demo")
    assert (tmp_path / "demo" / "demo.json").read_bytes() == note
    monkeypatch.undo()
    assert begin(tmp_path / "demo").images == 300


def test_a_directory_with_other_data_is_refused_and_left_alone(tmp_path):
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(DemoRefused, match="something else than a demo"):
        begin(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_two_at_a_time_are_refused(tmp_path):
    with begin(tmp_path).held(), pytest.raises(DemoRefused, match=r"runs in .* already"), begin(tmp_path).held():
        pass
    with begin(tmp_path).held():
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoRefused, match="--data-dir"):
        begin(tmp_path / "file" / "demo")


@pytest.mark.parametrize("note", ["", "{", "[]", '{"format": 1}', '{"format": 1, "began_at": "yesterday"}'])
def test_a_damaged_note_is_refused_by_name(tmp_path, note):
    (tmp_path / "demo.json").write_text(note)
    with pytest.raises(DemoRefused, match="is damaged"):
        begin(tmp_path)


def test_a_demo_of_another_release_is_refused(tmp_path):
    (tmp_path / "demo.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DemoRefused, match="another release"):
        begin(tmp_path)


def test_secrets_are_for_the_owner_alone(tmp_path):
    home = begin(tmp_path)
    home.with_ports().configure()
    for name in ("demo.json", "fediwarden.toml"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert home.origins_token not in repr(home)
    assert not any(password in repr(home) for password in home.passwords.values())


def test_the_settings_are_the_demos_own_whatever_a_real_instance_has(tmp_path):
    os.environ |= {
        "FEDIWARDEN_AUDIT__DATABASE": "postgresql://audit:secret@db.example/audit",
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": "kafka.example:9092",
        "FEDIWARDEN_DATA_DIR": "/var/lib/fediwarden",
        "FEDIWARDEN_CACHE_DIR": str(tmp_path / "cache"),
        "FEDIWARDEN_CONFIG": "/etc/fediwarden.toml",
    }
    home = begin(tmp_path / 'a "demo"').with_ports()
    home.configure()
    settings = load_settings()
    assert settings.data_dir == home.folder
    assert settings.cache_dir == tmp_path / "cache"
    assert settings.kafka.embedded
    assert settings.audit_database == f"sqlite:///{home.folder / 'audit.sqlite'}"
    assert (settings.gateway.port, settings.audit.pages.port) == (home.gateway_port, home.pages_port)
    assert settings.pages_url == home.pages_url
    assert settings.origin_tokens["default"].get_secret_value() == home.origins_token
    assert settings.scanner.policy is not None and settings.scanner.policy.is_file()


def test_the_list_knows_every_copy_of_the_week_and_nothing_harmless(tmp_path):
    home = begin(tmp_path)
    count = home.write_list()
    assert home.write_list() == count
    stored = ListStore(tmp_path / "lists").load(LIST)
    assert len(stored.hashes) == count > 10

    def is_known(motif: Motif, copy: int) -> bool:
        frames = extract(draw(motif, SEED, copy).data, FrameSettings()).frames
        return any(find_hash(stored, frame.pdq, [HashKind.PDQ]) for frame in frames)

    forbidden = [post for post in make_week() if post.motif.forbidden]
    assert all(is_known(post.motif, post.copy) for post in forbidden)
    harmless = [post for post in make_week() if not post.motif.forbidden][:100]
    assert not any(is_known(post.motif, post.copy) for post in harmless)
