"""Manifests: files that name the objects of a source, one by one, and say how each is to be read.

Invariant: a stream; a URI is passed on as it stands, byte for byte. A file that is not what its name says is an error, and so is
a row that says what cannot be: with its number, before anything is read. Passwords, and links that open what they name, leave
this module as numbers into a table that is never stored.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import Config
from pipelines.errors import BadManifest, ConfigError
from pipelines.options import PER_DOCUMENT, canonical, per_run
from pipelines.secrets import public

_ENDINGS = (".parquet", ".csv", ".txt", ".list")
_URI = ("uri", "url", "path")
_COLUMNS = (*_URI, "pages", "password", *PER_DOCUMENT)
_RANGE = re.compile(r"\s*(\d{1,7})\s*(?:-\s*(\d{0,7})\s*)?")
_MOST_SECRETS = 100_000  # each worker holds them
_MOST_OPTIONS = 1_000  # different ones
_MOST_SHOWN = 10

Secret = tuple[str | None, str | None]  # the link where it says more than the URI; the password


@dataclass(slots=True, frozen=True)
class Row:
    """What one row names. `link` is what opens it, `uri` what it is called: the same without credentials."""

    link: str
    pages: str = ""  # ranges from 1, "1-3,7", "12-"; "": all
    password: str | None = None
    options: str = ""  # canonical, see pipelines/options.py
    number: int = 0  # of its secret in the run's table, from 1; 0: it has none

    @property
    def uri(self) -> str:
        return public(self.link)

    @property
    def secret(self) -> Secret | None:
        link = self.link if self.link != self.uri else None
        return None if link is None and self.password is None else (link, self.password)


@dataclass(slots=True)
class Given:
    """What the rows of a manifest say, all together: found out before anything is read."""

    rows: int = 0
    secrets: dict[Secret, int] = field(default_factory=dict)  # numbers from 1
    options: set[str] = field(default_factory=set)

    def rows_of(self, config: Config) -> Callable[[str, str], Iterator[Row]]:
        """`manifest_rows`, each with the number of its secret."""

        def read(manifest: str, copy: str) -> Iterator[Row]:
            for row in manifest_rows(manifest, copy, config):
                yield row if row.secret is None else replace(row, number=self.secrets[row.secret])

        return read

    def table(self) -> tuple[Secret, ...]:
        return tuple(self.secrets)


def is_manifest(name: str) -> bool:
    """By its name: a text file has no content to tell it by."""
    return _path(name).endswith(_ENDINGS)


def _path(name: str) -> str:
    """Its end as endings are looked for: a link without its query."""
    name = name.lower()
    return name.partition("?")[0] if name.startswith(("http://", "https://")) else name


def manifest_rows(manifest: str, copy: str, config: Config | None = None) -> Iterator[Row]:
    """The rows of a Parquet or CSV manifest (docs/manifest.md), or of a text one, whose lines are URIs.

    Rows that follow each other and differ in their pages alone are one.

    Args:
        manifest: its name, for the ending and for messages.
        copy: path of its bytes on this machine.
        config: of the run, against which options are judged; None: they are left out.

    Raises:
        BadManifest: no column of URIs, a column or value that cannot be, or not readable as what its ending says.
    """
    reader = _Reader(manifest, config)
    for _, row in reader.merged(reader.rows(copy)):
        yield row
    reader.check()


def survey(manifest: str, copy: str, config: Config) -> Given:
    """Reads a manifest once, to its end, so that nothing begins that a row would end.

    Raises:
        BadManifest: naming the rows.
    """
    given = Given()
    for row in manifest_rows(manifest, copy, config):
        given.rows += 1
        given.options.add(row.options)
        if row.secret is not None and row.secret not in given.secrets:
            given.secrets[row.secret] = len(given.secrets) + 1
        if len(given.options) > _MOST_OPTIONS:
            raise BadManifest(f"{manifest}: more than {_MOST_OPTIONS} different sets of options: split it")
        if len(given.secrets) > _MOST_SECRETS:
            raise BadManifest(f"{manifest}: more than {_MOST_SECRETS} different passwords and signed links: split it")
    return given


class _Reader:
    def __init__(self, manifest: str, config: Config | None) -> None:
        self._manifest = manifest
        self._config = config
        self._columns: dict[str, str] = {}  # name in the file -> what it is
        self._known: dict[str, str] = {}  # options as JSON of raw values -> canonical
        self._problems: list[str] = []

    def rows(self, copy: str) -> Iterator[tuple[int, Row]]:
        name = _path(self._manifest)
        try:
            raw: Iterator[tuple[int, Mapping[str, Any]]]
            if name.endswith(".parquet"):
                raw = self._of_parquet(copy)
            elif name.endswith(".csv"):
                raw = self._of_csv(copy)
            else:
                raw = ((number, {"uri": line}) for number, line in _lines(copy))
            for number, values in raw:
                row = self._row(number, values)
                if row is not None:
                    yield number, row
        except (pa.ArrowException, csv.Error, OSError) as error:
            raise BadManifest(f"{self._manifest}: not a readable manifest: {error}") from error

    def merged(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        before: tuple[int, Row] | None = None
        for number, row in rows:
            if before is not None and replace(before[1], pages=row.pages) == row:
                both = [before[1].pages, row.pages]
                before = before[0], replace(row, pages="" if "" in both else ",".join(both))
                continue
            if before is not None:
                yield before
            before = number, row
        if before is not None:
            yield before

    def check(self) -> None:
        if self._problems:
            raise BadManifest(f"{self._manifest}: {'; '.join(self._problems)}. Nothing was read")

    def _problem(self, words: str) -> None:
        self._problems.append(words)
        if len(self._problems) >= _MOST_SHOWN:
            self.check()

    def _of_parquet(self, copy: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with pq.ParquetFile(copy) as file:
            self._name_columns(file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(columns=list(self._columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield number, {self._columns[name]: value for name, value in values.items()}

    def _of_csv(self, copy: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with open(copy, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            rows = csv.DictReader(text)
            self._name_columns(list(rows.fieldnames or []))
            for number, values in enumerate(rows, 1):
                yield number, {what: values[name] for name, what in self._columns.items()}

    def _name_columns(self, names: Sequence[str]) -> None:
        """
        Raises:
            BadManifest: no URIs; a column that only a run can have, that is nearly one of ours, or one of ours twice.
        """
        for name in names:
            what = _snake(name)
            if per_run(what):
                raise BadManifest(f"{self._manifest}: column {name} can only be set for a whole run: --set or --conf")
            what = what.removeprefix("paddleocr_vl.")
            if what in _COLUMNS and what not in self._columns.values():
                self._columns[name] = what
            elif what in _COLUMNS:
                raise BadManifest(f"{self._manifest}: column {name} is there twice")
            elif close := difflib.get_close_matches(what, _COLUMNS[3:], n=1, cutoff=0.8):
                raise BadManifest(f"{self._manifest}: unknown column {name}; did you mean {close[0]}?")
        found = [name for name, what in self._columns.items() if what in _URI]
        if not found:
            raise BadManifest(f"{self._manifest}: a manifest needs a column named uri, url or path; it has {', '.join(names)}")
        first = min(found, key=lambda name: _URI.index(self._columns[name]))
        for name in found:
            del self._columns[name]
        self._columns[first] = "uri"

    def _row(self, number: int, raw: Mapping[str, Any]) -> Row | None:
        values = {key: value for key, value in raw.items() if not _is_nothing(value)}
        if "uri" not in values:
            return None
        try:
            pages = _pages(values.get("pages"))
            options = self._options({key: value for key, value in values.items() if key in PER_DOCUMENT})
        except (ConfigError, ValueError) as error:
            self._problem(f"row {number}: {error}")
            return None
        password = values.get("password")
        return Row(str(values["uri"]), pages, str(password) if password is not None else None, options)

    def _options(self, given: Mapping[str, Any]) -> str:
        if not given or self._config is None:
            return ""
        key = json.dumps(given, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = canonical(self._config, {name: _value(value) for name, value in given.items()})
        return self._known[key]


def _lines(copy: str) -> Iterator[tuple[int, str]]:
    with open(copy, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        for number, raw in enumerate(text, 1):
            line = raw.strip("\r\n")
            if not line.startswith("#"):
                yield number, line


def _snake(name: str) -> str:
    """`layoutThreshold`, as the official API has it, is `layout_threshold`."""
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", name.strip())


def _is_nothing(value: Any) -> bool:
    """An empty cell; pandas writes NaN for it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _value(value: Any) -> Any:
    """A cell as JSON has it, where it is text: `true`, `0.3`, `{"22": 0.4}`; other text as it stands."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value.strip().lower() == "true" if value.strip().lower() in ("true", "false") else value
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return dict(value)  # of a Parquet map
    return value


def _pages(value: Any) -> str:
    """Ranges of pages in one form.

    Raises:
        ConfigError
    """
    if value is None or value == []:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).strip()
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        first, last = (int(found[1]), found[2]) if found else (0, None)
        if not first or (last and int(last) < first):
            most = ", of at most 7 digits" if re.search(r"\d{8}", part) else ""
            raise ConfigError(f"pages: expected ranges from 1 like 1-3,7,12-{most} (got {text!r})")
    return re.sub(r"\s", "", text)


def page_indices(pages: str, count: int) -> tuple[int, ...]:
    """Indices from 0, ascending, of those ranges that a document of so many pages has; "": all."""
    if not pages:
        return tuple(range(count))
    chosen: set[int] = set()
    for part in pages.split(","):
        first, dash, last = part.partition("-")
        end = int(last) if last else (count if dash else int(first))
        chosen.update(range(int(first) - 1, min(end, count)))
    return tuple(sorted(chosen))


def opening(uri: str, secret: int, secrets: Sequence[Secret], passwords: Sequence[str]) -> tuple[str, list[str]]:
    """Of an object: the link that fetches it, and the passwords to be tried, its own first."""
    link, password = secrets[secret - 1] if 0 < secret <= len(secrets) else (None, None)
    return link or uri, [password, *passwords] if password is not None else list(passwords)
