"""pagemill's own log: one line an event, `event key=value`, on standard error.

Invariant: nothing secret is ever an argument of a log call; other libraries' loggers are left alone.
"""

from __future__ import annotations

import logging


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is now, not to what it was when the log was configured."""

    def emit(self, record: logging.LogRecord) -> None:
        import sys

        self.stream = sys.stderr
        super().emit(record)


def configure(level: str) -> None:
    """Sets the level (debug, info, warning, error) of the logger `pagemill`; may be called again."""
    logger = logging.getLogger("pagemill")
    logger.setLevel(level.upper())
    logger.propagate = False
    if not logger.handlers:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("pagemill: %(levelname)s %(message)s"))
        logger.addHandler(handler)
