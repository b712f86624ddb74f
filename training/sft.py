"""Training data in ERNIEKit's SFT format: one JSON object a line, read, checked and written.

    {"image_info": [{"image_url": "crops/1.png", "matched_text_index": 0}],
     "text_info": [{"text": "OCR:", "tag": "mask"}, {"text": "what it says", "tag": "no_mask"}]}

`mask` is what is asked, `no_mask` what is to be learnt, in turns. An image stands before the text that its index names.
Invariant: a file that passed `check` trains; every problem names its line, the field and what was expected there.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from pipelines.errors import ConfigError, UnusableCrop
from pipelines.recognize.pack import target_size
from pipelines.recognize.plan import PROMPTS
from training.answers import CHECKS

_TASK_OF = {prompt: task for task, prompt in PROMPTS.items()}


@dataclass(slots=True, frozen=True)
class Problem:
    line: int  # from 1
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field + ': ' if self.field else ''}{self.message}"


@dataclass(slots=True, frozen=True)
class Turn:
    """What is asked, about which images, and what is to be said."""

    question: str
    images: tuple[str, ...]
    answer: str

    @property
    def task(self) -> str:
        """ocr, table, formula, ...; "other" for a prompt that is none of the released ones."""
        return _TASK_OF.get(self.question.strip(), "other")


@dataclass(slots=True, frozen=True)
class Record:
    line: int
    turns: tuple[Turn, ...]


@dataclass(slots=True)
class Checked:
    """What a file holds."""

    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)


def check(path: Path, images: bool = True) -> Checked:
    """Reads and checks a whole file; `images`: opens each image's header too.

    Raises:
        ConfigError: the file cannot be read at all.
    """
    found = Checked()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        reader = _Reader(number)
        record = reader.record(line)
        if record is not None and images:
            reader.images(record, path.parent)
        if record is not None and not reader.problems:
            found.records.append(record)
            found.tasks.update(turn.task for turn in record.turns)
        found.problems += reader.problems
    if not found.records and not found.problems:
        found.problems.append(Problem(1, "", "the file is empty"))
    return found


class _Reader:
    """One line, with all that is wrong with it."""

    def __init__(self, line: int) -> None:
        self._line = line
        self.problems: list[Problem] = []

    def _say(self, where: str, message: str) -> None:
        self.problems.append(Problem(self._line, where, message))

    def record(self, raw: bytes) -> Record | None:
        try:
            content = json.loads(raw)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            self._say("", f"not JSON ({error})")
            return None
        if not isinstance(content, dict):
            self._say("", f"expected an object, found {type(content).__name__}")
            return None
        texts = self._texts(content.get("text_info"))
        images = self._image_info(content.get("image_info"), texts)
        turns = self._turns(texts, images)
        return None if self.problems else Record(self._line, turns)

    def _texts(self, given: Any) -> list[tuple[str, str]]:
        """(tag, text) of each entry, as far as they are any."""
        if not isinstance(given, list) or not given:
            self._say("text_info", "expected a list of {text, tag}")
            return []
        texts = []
        for nth, entry in enumerate(given):
            where = f"text_info[{nth}]"
            if not isinstance(entry, dict):
                self._say(where, "expected {text, tag}")
                continue
            text, tag = entry.get("text"), entry.get("tag")
            if not isinstance(text, str):
                self._say(f"{where}.text", f"expected a string, found {type(text).__name__}")
            if tag not in ("mask", "no_mask"):
                near = difflib.get_close_matches(str(tag), ["mask", "no_mask"], 1)
                self._say(
                    f"{where}.tag", f"expected mask or no_mask, found {tag!r}" + (f"; did you mean {near[0]}?" if near else "")
                )
            texts.append((str(tag), text if isinstance(text, str) else ""))
        return texts

    def _image_info(self, given: Any, texts: list[tuple[str, str]]) -> dict[int, list[str]]:
        """URLs by the index of the text that they stand before."""
        if given is None:
            return {}
        if not isinstance(given, list):
            self._say("image_info", "expected a list of {image_url, matched_text_index}")
            return {}
        images: dict[int, list[str]] = {}
        for nth, entry in enumerate(given):
            where = f"image_info[{nth}]"
            if not isinstance(entry, dict):
                self._say(where, "expected {image_url, matched_text_index}")
                continue
            url, index = entry.get("image_url"), entry.get("matched_text_index")
            if not isinstance(url, str) or not url:
                self._say(f"{where}.image_url", "expected a path or a data: URL")
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(texts):
                self._say(f"{where}.matched_text_index", f"expected 0 to {max(0, len(texts) - 1)}, found {index!r}")
            elif texts[index][0] == "no_mask":
                self._say(f"{where}.matched_text_index", f"{index} is an answer; an image belongs to a question (tag mask)")
            elif isinstance(url, str):
                images.setdefault(index, []).append(url)
        return images

    def _turns(self, texts: list[tuple[str, str]], images: dict[int, list[str]]) -> tuple[Turn, ...]:
        turns = []
        if texts and texts[-1][0] == "mask":
            self._say(f"text_info[{len(texts) - 1}]", "a question without an answer (tag no_mask) after it")
        asked: tuple[int, str] | None = None
        for nth, (tag, text) in enumerate(texts):
            if tag == "mask":
                if asked is not None:
                    self._say(f"text_info[{nth}].tag", "two questions in a row; mask and no_mask take turns")
                asked = nth, text
            elif tag == "no_mask":
                if asked is None:
                    self._say(f"text_info[{nth}].tag", "an answer without a question (tag mask) before it")
                    continue
                turn = Turn(asked[1], tuple(images.get(asked[0], ())), text)
                self._answer(nth, turn)
                turns.append(turn)
                asked = None
        return tuple(turns)

    def _answer(self, nth: int, turn: Turn) -> None:
        if not turn.answer.strip():
            self._say(f"text_info[{nth}].text", "an empty answer; leave out what shows nothing")
            return
        checker: Callable[[str], str | None] | None = CHECKS.get(turn.task)
        problem = checker(turn.answer) if checker else None
        if problem:
            self._say(f"text_info[{nth}].text", problem)
        if turn.task != "other" and not turn.images and not self.problems:
            self._say("image_info", f"{turn.question.strip()!r} asks about an image, and none has its index")

    def images(self, record: Record, folder: Path) -> None:
        for url in (url for turn in record.turns for url in turn.images):
            shown = url if len(url) < 80 else url[:60] + "..."
            try:
                with open_image(url, folder) as picture:
                    target_size(picture.height, picture.width, 1, 1 << 40)
            except (OSError, UnidentifiedImageError, UnusableCrop, ValueError) as error:
                self._say("image_info", f"{shown}: {error}")


_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # none for which Pillow calls another program


def open_image(url: str, folder: Path) -> Image.Image:
    """By path (relative to the JSONL's folder), any fsspec URI, or a data: URL.

    Raises:
        OSError, UnidentifiedImageError: it is not there, or no image.
        ValueError: a data: URL that is none.
    """
    if url.startswith("data:"):
        head, comma, body = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("a data: URL must be base64")
        try:
            return Image.open(io.BytesIO(base64.b64decode(body, validate=True)), formats=_FORMATS)
        except binascii.Error as error:
            raise ValueError(f"not base64 ({error})") from None
    if "://" in url:
        import fsspec

        with fsspec.open(url, "rb") as stream:
            return Image.open(io.BytesIO(stream.read()), formats=_FORMATS)
    return Image.open(folder / url, formats=_FORMATS)


def line_of(turns: Iterable[Turn]) -> str:
    """A record as its line, without the line break."""
    texts: list[dict[str, str]] = []
    images: list[dict[str, Any]] = []
    for turn in turns:
        images += [{"image_url": url, "matched_text_index": len(texts)} for url in turn.images]
        texts += [{"text": turn.question, "tag": "mask"}, {"text": turn.answer, "tag": "no_mask"}]
    return json.dumps({"image_info": images, "text_info": texts}, ensure_ascii=False)


def problems_text(problems: list[Problem], most: int = 20) -> Iterator[str]:
    """For people: the first ones, and how many more."""
    yield from map(str, problems[:most])
    if len(problems) > most:
        yield f"... and {len(problems) - most} more"
