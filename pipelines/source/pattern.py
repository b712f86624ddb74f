"""Globs: a folder that is certain, and a pattern below it.

Invariant: pure. `*`, `?` and `[...]` match within one name, a leading dot too; `**` stands for any number of folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

_SIGNS = frozenset("*?[")


def is_pattern(path: str) -> bool:
    return not _SIGNS.isdisjoint(path)


@dataclass(slots=True, frozen=True)
class Pattern:
    root: str  # no slash at its end
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, path: str) -> Pattern:
        names = path.split("/")
        first = next(i for i, name in enumerate(names) if is_pattern(name))
        return cls("/".join(names[:first]), tuple(names[first:]))

    def matches(self, names: tuple[str, ...]) -> bool:
        """Whether these names, from the root on, are what the pattern means."""
        return _matches(self.parts, names)

    def may_hold(self, names: tuple[str, ...]) -> bool:
        """Whether something below this folder may match."""
        for part, name in zip(self.parts, names, strict=False):
            if part == "**":
                return True
            if not fnmatchcase(name, part):
                return False
        return len(names) < len(self.parts)


def _matches(parts: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_matches(parts[1:], names[skip:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:])
