"""Which interpreters may hold the layout stage, and what is said of the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.cluster.interpreter import check_interpreter
from pipelines.errors import ConfigError


def script(folder: Path, says: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return str(path)


def test_one_like_this_is_right() -> None:
    check_interpreter(sys.executable)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("echo 3.14 | tr . ' ' | sed 's/$/ 2.60.0/'", r"has Python 3\.14 and Ray 2\.60\.0; that environment needs Python 3\.1"),
        (f"echo {sys.version_info[0]} {sys.version_info[1]} 1.0.0", r"Ray 1\.0\.0; that environment needs .* ray=="),
        ("echo \"ModuleNotFoundError: No module named 'pagemill'\" >&2; exit 1", "No module named 'pagemill'"),
        ("exit 7", "exit code 7"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, says: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_interpreter(script(tmp_path, says))


def test_none_is_no_interpreter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layout\.python=.*No such file"):
        check_interpreter(str(tmp_path / "python"))
