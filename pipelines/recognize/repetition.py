"""A model that began to repeat itself is cut off where the repetition begins.

Invariant: pure; text that does not repeat comes back as it is, unstripped. The official code removes every repeat of a
looping unit, the first one too; by default the first one stays.
"""

from __future__ import annotations

from collections import Counter

_LINE = 100  # characters from which the end of a single line is looked at
_UNIT_LEAST = 8
_UNIT_TIMES = 5  # so often must a unit stand at the end before its run is measured
_RUN = 0.5  # of the line
_WHOLE_TIMES = 10
_LINES = 10
_LINES_SHARE = 0.8

TEXT_LEAST, TABLE_LEAST = 50, 5000  # characters from which an answer is looked at


def cut_repetition(text: str, least: int = TEXT_LEAST, strict: bool = False) -> str:
    """
    Args:
        least: characters below which a text is never touched.
        strict: remove a looping end whole, as the official code does (which may leave "").
    """
    if len(text) < least:
        return text
    line = text.strip()
    if "\n" not in line:
        unit = _looping_end(line) if len(line) > _LINE else None
        if unit is not None:
            start = len(line) - _run(line, unit)
            return line[:start] if strict else line[: start + unit]
        period = _period(line) if len(line) > _WHOLE_TIMES else None
        if period is not None and len(line) // period >= _WHOLE_TIMES:
            return line[:period]
    lines = [part for part in map(str.strip, line.split("\n")) if part]
    if len(lines) >= _LINES:
        common, times = Counter(lines).most_common(1)[0]
        if times >= _LINES and times / len(lines) >= _LINES_SHARE:
            return common
    return text


def _looping_end(line: str) -> int | None:
    """The longest unit whose run ends the line and is more than half of it."""
    for unit in range(len(line) // _UNIT_TIMES, _UNIT_LEAST - 1, -1):
        if line.endswith(line[-unit:] * _UNIT_TIMES):
            return unit if _run(line, unit) > _RUN * len(line) else None
    return None


def _run(line: str, unit: int) -> int:
    """Characters of the longest run of the last `unit` characters at the end."""
    tail, end = line[-unit:], len(line)
    while end >= unit and line[end - unit : end] == tail:
        end -= unit
    return len(line) - end


def _period(line: str) -> int | None:
    """The shortest unit that repeated gives the whole line."""
    found = (line + line).find(line, 1)
    return found if found < len(line) else None
