"""docs/reliability.md names tests as its evidence: each of them exists."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_that_the_table_names_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    file, named, missing = "", 0, []
    for path, test in re.findall(r"`(tests/\S+?\.py)?::(test_\w+)`", text):
        file = path or file  # `::test_...` is of the file named before
        named += 1
        if not re.search(rf"^def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE):
            missing.append(f"{file}::{test}")
    assert not missing
    assert named > 25
