"""`make bundle`, and `python -m jobs.bundle verify DIR`: all that an air-gapped site needs, in one folder, with checksums.

    wheels/        every package of the images' locks, and pagemill itself: put it beside the Dockerfiles as ./wheels
    weights/NAME/  models, where --weights names their folders
    images/        base images (docker save), where --image names them, and what their digests are
    SHA256SUMS     of every file: `sha256sum --check --strict SHA256SUMS` needs nothing of pagemill

Invariant: `verify` says ok only for exactly these files with exactly these bytes; a name in SHA256SUMS never leads out of the
folder. Nothing is fetched that a lock does not pin.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from jobs.common import run_app
from pipelines.errors import ConfigError, ExitCode

SUMS = "SHA256SUMS"
_PYTHONS = {"cpu.lock": "3.11.13", "gpu.lock": "3.12.3"}  # of the image that installs it

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Bundles for sites without a network.")


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="a new folder, or one that an earlier call made")],
    lock: Annotated[list[Path] | None, typer.Option(help="locks whose wheels are collected")] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="folders of models")] = None,
    image: Annotated[list[str] | None, typer.Option(help="base images, saved with docker")] = None,
    pip: Annotated[list[str] | None, typer.Option(help="further arguments of pip download")] = None,
) -> None:
    """Collect wheels, weights and images, and write their checksums."""
    if folder.exists() and any(folder.iterdir()) and not (folder / SUMS).exists() and not (folder / "wheels").is_dir():
        raise ConfigError(f"{folder} is not empty and no bundle; name a new folder")
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    for path in lock or []:
        collect_wheels(path, folder / "wheels", pip or [])
    for path in weights or []:
        if not path.is_dir():
            raise ConfigError(f"--weights {path}: no such folder")
        shutil.copytree(path, folder / "weights" / path.name, dirs_exist_ok=True)
    for name in image or []:
        save_image(name, folder / "images")
    print(f"{write_sums(folder)} files in {folder}; there: sha256sum --check --strict {SUMS}")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="what `make bundle` made")]) -> None:
    """Say whether a bundle is whole and nobody changed it."""
    problems = problems_of(folder)
    for problem in problems[:50]:
        print(f"PROBLEM  {problem}")
    print("whole" if not problems else f"{len(problems)} problems: copy the bundle again")
    sys.exit(ExitCode.AUDIT_FAILED if problems else ExitCode.OK)


def collect_wheels(lock: Path, wheels: Path, further: Sequence[str] = ()) -> None:
    """Downloads exactly what a lock pins, as wheels for Linux on x86-64.

    Raises:
        ConfigError: an index does not have them.
    """
    version = _PYTHONS.get(lock.name, "3.11.13")
    abi = "cp" + "".join(version.split(".")[:2])
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels),
        "--requirement", str(lock),
        "--python-version", version, "--implementation", "cp", "--abi", abi, "--abi", "abi3",
        "--abi", "none", *(f"--platform=manylinux_2_{glibc}_x86_64" for glibc in (35, 34, 31, 28, 27, 24, 17, 12)),
        "--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64", "--platform=manylinux1_x86_64", *further,
    ]  # fmt: skip
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise ConfigError(f"{lock}: {done.stderr.strip()[-1000:]}")


def save_image(name: str, images: Path) -> None:
    """`docker save`, and the image's digest beside it, to pin a Dockerfile with.

    Raises:
        ConfigError: docker is not here, or has no such image.
    """
    if shutil.which("docker") is None:
        raise ConfigError(f"--image {name}: docker is not installed here")
    images.mkdir(parents=True, exist_ok=True)
    file = images / (name.replace("/", "_").replace(":", "_") + ".tar")
    for command in (["docker", "pull", "--quiet", name], ["docker", "save", "--output", str(file), name]):
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        if done.returncode:
            raise ConfigError(f"{' '.join(command)}: {done.stderr.strip()}")
    told = ["docker", "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', name]
    file.with_suffix(".digest").write_text(subprocess.run(told, text=True, capture_output=True, check=True).stdout)


def write_sums(folder: Path) -> int:
    """Writes SHA256SUMS; the number of files in it."""
    files = _files(folder)
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), "utf-8")
    return len(files)


def problems_of(folder: Path) -> list[str]:
    """What is missing, changed, or too much.

    Raises:
        ConfigError: no bundle.
    """
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{folder} is no bundle: {error}") from None
    told: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or name.startswith("/") or ".." in name.split("/"):
            problems.append(f"{SUMS} line {number} is no checksum of a file in here")
        else:
            told[name] = digest
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    problems += [f"{name} is missing" for name in told.keys() - there.keys()]
    problems += [f"{name} is not in {SUMS}" for name in there.keys() - told.keys()]
    problems += [f"{name} has other bytes" for name in told.keys() & there.keys() if _digest(there[name]) != told[name]]
    return sorted(problems)


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return sorted(path for path in found if path != folder / SUMS)


def _digest(path: Path) -> str:
    if path.is_symlink():
        return "a link"  # never followed: it would vouch for bytes that are not in the bundle
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    run_app(app)
