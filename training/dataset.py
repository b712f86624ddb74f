"""Records of a JSONL file as packed batches of one checkpoint's tokens.

Invariant: which samples share a batch, and in which epoch and order they come, follows from the file, the recipe and the
seed; a sample's tokens are those of the checkpoint's chat template, the answers and their end token alone are learnt.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import ConfigError
from pipelines.recognize import pack as crops
from pipelines.recognize.base import Packed
from pipelines.recognize.checkpoint import PLACEHOLDER, read_template, render
from training.batches import IGNORE, Batch, Capacity, Example, pack
from training.encode import Encoder, mrope
from training.recipe import Recipe
from training.sft import Problem, Record, Turn, open_image


@dataclass(slots=True, frozen=True)
class Size:
    """What a record takes of a batch."""

    patches: int
    tokens: int
    pictures: int


@dataclass
class Conversations:
    """Turns records into examples, by the checkpoint's own template."""

    checkpoint: Path
    images: Path  # folder that relative paths start from
    min_pixels: int
    max_pixels: int
    form: crops.PatchFormat

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.of(self.checkpoint)

    @cached_property
    def template(self) -> str:
        return read_template(self.checkpoint)

    def segments(self, turns: Sequence[Turn]) -> list[tuple[str, bool]]:
        """The conversation as text with one placeholder an image, cut into (text, whether it is learnt)."""
        messages: list[dict[str, object]] = []
        found: list[tuple[str, bool]] = []
        said = ""
        for turn in turns:
            parts = [{"type": "image", "image": url} for url in turn.images]
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]})
            asked = render(self.template, messages, add_generation_prompt=True)
            if not asked.startswith(said):
                raise ConfigError(
                    f"{self.checkpoint}: the chat template changes earlier turns; such a conversation cannot be packed"
                )
            found.append((asked[len(said) :], False))
            found.append((turn.answer, True))
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
            said = render(self.template, messages, add_generation_prompt=False)
        return found

    def example(self, record: Record) -> Example:
        packed = [self._picture(url) for turn in record.turns for url in turn.images]
        return self._assemble(record, [p.grid for p in packed], [p.patches for p in packed])

    def size(self, record: Record) -> Size:
        """Without reading pixels: headers alone."""
        grids = [self._grid(url) for turn in record.turns for url in turn.images]
        made = self._assemble(record, grids, [])
        return Size(sum(g[1] * g[2] for g in grids), len(made.ids), max(1, len(grids)))

    def _picture(self, url: str) -> Packed:
        with open_image(url, self.images) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        return crops.pack(pixels, self.min_pixels, self.max_pixels, self.form.patch, self.form.merge, self.form.resample)

    def _grid(self, url: str) -> tuple[int, int, int]:
        with open_image(url, self.images) as picture:
            height, width = crops.target_size(
                picture.height, picture.width, self.min_pixels, self.max_pixels, self.form.patch * self.form.merge
            )
        return 1, height // self.form.patch, width // self.form.patch

    def _assemble(self, record: Record, grids: Sequence[tuple[int, int, int]], patches: Sequence[np.ndarray]) -> Example:
        encoder, merge = self.encoder, self.form.merge
        ids: list[int] = []
        learnt: list[bool] = []
        at: list[int] = []
        waiting = [(g[1] // merge, g[2] // merge) for g in grids]
        shown: list[tuple[int, int]] = []
        texts = [0]  # lengths of text before, between and after pictures
        for text, learn in self.segments(record.turns):
            for nth, piece in enumerate(text.split(PLACEHOLDER) if not learn else [text]):
                if nth:
                    rows, columns = waiting[len(shown)]
                    shown.append((rows, columns))
                    at += range(len(ids), len(ids) + rows * columns)
                    ids += [encoder.image_token] * (rows * columns)
                    learnt += [False] * (rows * columns)
                    texts.append(0)
                tokens = encoder.tokens(piece) + ([encoder.end_token] if learn else [])
                ids, learnt, texts[-1] = ids + tokens, learnt + [learn] * len(tokens), texts[-1] + len(tokens)
        array = np.array(ids, np.int64)
        side = self.form.patch
        empty = np.zeros((0, 3, side, side), np.uint8)
        return Example(
            np.concatenate(patches) if patches else empty, [(g[1], g[2]) for g in grids], array,
            np.where(learnt, array, IGNORE), mrope(texts[0], shown, texts[1:]), np.array(at, np.int64),
        )  # fmt: skip


@dataclass
class Dataset:
    """A `Source` of batches: number n is one packed sequence, epochs follow each other in new orders."""

    records: list[Record]
    sizes: list[Size]
    conversations: Conversations
    recipe: Recipe
    capacity: Capacity
    side: int  # of the table of position embeddings
    shuffled: bool = True
    _groups: list[list[int]] = field(default_factory=list)
    _epochs: int = 0

    def batch(self, number: int) -> Batch:
        examples = [self.conversations.example(self.records[i]) for i in self.group(number)]
        batch = pack(examples, self.capacity, self.side, self.conversations.form.merge)
        batch.tasks = [self.records[i].turns[0].task for i in self.group(number)]
        return batch

    def group(self, number: int) -> list[int]:
        while number >= len(self._groups):
            self._groups += self._epoch(self._epochs)
            self._epochs += 1
        return self._groups[number]

    def once(self) -> int:
        """Batches of one epoch."""
        return len(self._epoch(0))

    def _epoch(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self.records)))
        if self.shuffled:
            random.Random(f"{self.recipe.seed} {epoch}").shuffle(order)
        most = self.recipe.packing_size if self.recipe.packing else 1
        groups: list[list[int]] = []
        used = (0, 0, 0)
        for i in order:
            size = self.sizes[i]
            wanted = (used[0] + size.patches, used[1] + size.tokens, used[2] + size.pictures)
            if not groups or len(groups[-1]) >= most or not self.capacity.holds(*wanted):
                groups.append([])
                wanted = (size.patches, size.tokens, size.pictures)
            groups[-1].append(i)
            used = wanted
        return groups

    def steps(self, devices: int = 1) -> int:
        """Of the whole training: the recipe's max_steps, else from the packed sequences that there are."""
        if self.recipe.max_steps > 0:
            return self.recipe.max_steps
        per_step = devices * self.recipe.batch_size * self.recipe.gradient_accumulation_steps
        return max(1, math.ceil(self.once() * self.recipe.num_train_epochs / per_step))


def measured(records: Sequence[Record], conversations: Conversations, capacity: Capacity) -> tuple[list[Size], list[Problem]]:
    """Sizes of all records, and a problem for each that fits no batch."""
    sizes = [conversations.size(record) for record in records]
    problems = [
        Problem(record.line, "", f"{size.tokens} tokens and {size.patches} patches; a packed sequence holds {capacity.tokens} "
                f"and {capacity.patches} (max_seq_len, max_patches)")
        for record, size in zip(records, sizes, strict=True)
        if not capacity.holds(size.patches, size.tokens, size.pictures)
    ]  # fmt: skip
    return sizes, problems
