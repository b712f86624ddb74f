"""pagemill's own log: one line an event on standard error, `time LEVEL event run=... key=value ...` (logfmt).

Invariant: a line is a line and a value is a value, whatever a document's name or an error holds: line ends, control characters
and quotes are escaped, credentials are hidden, long values are cut. Other libraries' loggers are left alone. In Ray's workers
the lines go where their standard error goes: into files of the session.
"""

from __future__ import annotations

import json
import logging
import re
import time

from pipelines.secrets import scrub

_LONGEST = 500  # characters of a value
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x20\ud800-\udfff\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class EventLog:
    """The logger `pagemill`: an event is a word, and has fields. `document` and `span` mean the same in all of them."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("pagemill")

    def debug(self, event: str, **fields: object) -> None:
        self.log(logging.DEBUG, event, **fields)

    def info(self, event: str, **fields: object) -> None:
        self.log(logging.INFO, event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self.log(logging.WARNING, event, **fields)

    def log(self, level: int, event: str, **fields: object) -> None:
        if self._logger.isEnabledFor(level):
            told = "".join(f" {name}={value_text(value)}" for name, value in fields.items() if value is not None)
            self._logger.log(level, "%s%s", event, told)


def value_text(value: object) -> str:
    """One value as logfmt has it: bare where it is one plain word, else in quotes."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = scrub(str(value))
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return text if _PLAIN.fullmatch(text) else printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    r"""Text of a document, a name or an error for a terminal or a line of a log: what would move the cursor, start a line or
    hide what follows stands as `\x1b`; letters of any script stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_controls(text: str) -> str:
    """Text of several lines for a terminal: nothing in it can move the cursor, colour or answer."""
    return _CONTROLS.sub("", text)


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is now, not to what it was when the log was configured."""

    def emit(self, record: logging.LogRecord) -> None:
        import sys

        self.stream = sys.stderr
        super().emit(record)


class _Line(logging.Formatter):
    """`pagemill: 2026-11-24T23:31:00.123Z WARNING event run=... key=value`."""

    def __init__(self, run: str | None) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        event, _, fields = printable(scrub(record.getMessage())).partition(" ")
        run = f" run={self._run}" if self._run else ""
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        return f"pagemill: {at} {record.levelname} {event}{run}{' ' + fields if fields else ''}"


def configure(level: str, run: str | None = None) -> None:
    """Sets the level (debug, info, warning, error) of the logger `pagemill` and, for what this process logs from now on, the
    run; may be called again."""
    logger = logging.getLogger("pagemill")
    logger.setLevel(level.upper())
    logger.propagate = False
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError())
    for handler in logger.handlers:
        if isinstance(handler, _StandardError):
            handler.setFormatter(_Line(run))
