"""Whether another interpreter can take part in a run, asked before anything starts.

Invariant: knows Ray by its version number only. An actor whose interpreter is missing or disagrees with the driver's would be
started by Ray again and again, and nothing would say why.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

from pipelines.errors import ConfigError

_ASK = "import sys, pagemill; from importlib.metadata import version; print(*sys.version_info[:2], version('ray'))"
_PATIENCE_S = 120.0  # importing from a cold network disk


def check_interpreter(python: str) -> None:
    """
    Raises:
        ConfigError: `layout.python` is not there, or lacks pagemill, or has another Python or Ray than this one.
    """
    needs = f"that environment needs Python {_here()[0]}, pagemill and ray=={_here()[1]} (docs/parity.md)"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=_PATIENCE_S, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"layout.python={python}: {error}; {needs}") from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise ConfigError(f"layout.python={python}: {last}; {needs}")
    major, minor, ray = asked.stdout.split()
    if (f"{major}.{minor}", ray) != _here():
        raise ConfigError(f"layout.python={python} has Python {major}.{minor} and Ray {ray}; {needs}")


def _here() -> tuple[str, str]:
    return f"{sys.version_info[0]}.{sys.version_info[1]}", metadata.version("ray")
