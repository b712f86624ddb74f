"""An endless, reproducible stream of batches of synthetic documents, harder as training goes on.

Invariant: batch number n is a function of (seed, n, capacity, curriculum) alone: of no clock, worker count or batch before,
so that training resumed at step n sees what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.recognize.pack import target_size
from pipelines.recognize.plan import PROMPTS
from training.batches import SLOTS, Batch, Capacity, Example, fill, pack
from training.encode import Encoder
from training.synth import texts
from training.synth.faces import TRAINED, Face
from training.synth.formulas import formula
from training.synth.pictures import Limits, Picture, line, paragraph, table

CLASSES = {c: number for number, c in enumerate(texts.ALPHABET.replace(" ", ""), 1)}  # of the training aid; 0: no character
KINDS: dict[str, Callable[[random.Random, Limits], Picture]] = {
    "line": line, "paragraph": paragraph, "table": table, "formula": formula,
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Stage:
    """Up to which share of training, what is drawn how often, and how hard."""

    until: float
    mix: dict[str, float]
    longest: int
    lines: int
    cells: int
    smallest: int
    disorder: float
    small: float = 0.0
    even: bool = False
    shaped: bool = False


# Characters first, then the order along a line, then the order of lines and cells. Disorder (random characters) is high
# early: it is what makes a model look instead of guess.
CURRICULUM = (
    Stage(0.02, {"line": 1.0}, 4, 2, 2, 18, 0.7),
    Stage(0.05, {"line": 1.0}, 10, 2, 2, 16, 0.6),
    Stage(0.09, {"line": 0.85, "paragraph": 0.1, "table": 0.05}, 20, 2, 2, 14, 0.5),
    Stage(0.15, {"line": 0.6, "paragraph": 0.2, "table": 0.15, "formula": 0.05}, 40, 3, 3, 14, 0.4),
    Stage(1.00, {"line": 0.42, "paragraph": 0.26, "table": 0.22, "formula": 0.1}, 40, 4, 4, 14, 0.3),
)

# What the first training reads worst: type below 18 px (two characters share a patch), faces that it drew seldom, ligatures.
SECOND = (Stage(1.00, {"line": 0.42, "paragraph": 0.26, "table": 0.24, "formula": 0.08}, 40, 4, 4, 14, 0.3, 0.4, True, True),)


class Drawing:
    """Pictures as examples of one checkpoint."""

    def __init__(self, encoder: Encoder, min_pixels: int, max_pixels: int) -> None:
        self._encoder, self._min, self._max = encoder, min_pixels, max_pixels
        vocabulary = encoder.tokenizer.get_vocab()
        self._ids = {**vocabulary, " ": vocabulary["▁"]}

    def example(self, picture: Picture) -> Example:
        height, width = picture.pixels.shape
        tall, wide = target_size(height, width, self._min, self._max)
        grid = tall // 14, wide // 14
        scaled = np.asarray(Image.fromarray(picture.pixels).resize((wide, tall), Image.Resampling.BICUBIC))
        patches = scaled.reshape(grid[0], 14, grid[1], 14).transpose(0, 2, 1, 3).reshape(-1, 1, 14, 14)
        answer = [self._ids[token] for token in picture.tokens]
        made = self._encoder.example(patches, grid, PROMPTS[picture.task], answer)
        made.marks = np.zeros((grid[0] * grid[1], SLOTS), np.uint8)
        made.places = np.full((len(made.ids), 2), -1, np.int16)
        self._aids(made, picture, grid, (tall / height, wide / width), len(made.ids) - len(answer) - 1)
        return made

    def _aids(self, made: Example, picture: Picture, grid: tuple[int, int], scale: tuple[float, float], first: int) -> None:
        assert made.marks is not None
        assert made.places is not None
        slots: dict[int, list[tuple[float, int]]] = {}
        for nth, (token, place) in enumerate(zip(picture.tokens, picture.places, strict=True)):
            if place is None:
                continue
            x, y = place[0] * scale[1] / 14, place[1] * scale[0] / 14
            column, row = min(grid[1] - 1, max(0, int(x))), min(grid[0] - 1, max(0, int(y)))
            made.places[first + nth] = column // 2, row // 2
            if token in CLASSES:
                slots.setdefault(row * grid[1] + column, []).append((x, CLASSES[token]))
        for cell, marks in slots.items():
            for slot, (_, mark) in enumerate(sorted(marks)[:SLOTS]):
                made.marks[cell, slot] = mark


@dataclass(slots=True)
class Stream:
    """What a worker needs to draw any batch."""

    checkpoint: Path
    capacity: Capacity
    steps: int
    seed: int
    side: int
    min_pixels: int
    max_pixels: int
    fonts: Path | None = None
    curriculum: tuple[Stage, ...] = CURRICULUM
    _drawing: Drawing | None = None

    @property
    def drawing(self) -> Drawing:
        if self._drawing is None:
            self._drawing = Drawing(Encoder.of(self.checkpoint), self.min_pixels, self.max_pixels)
        return self._drawing

    def batch(self, number: int) -> Batch:
        rng = random.Random(self.seed * 1_000_003 + number)
        share = number / max(1, self.steps)
        stage = next(stage for stage in self.curriculum if share <= stage.until)
        base = Limits(folder=self.fonts)
        limits = replace(
            base, longest=stage.longest, lines=stage.lines, cells=stage.cells, smallest=stage.smallest, disorder=stage.disorder,
            small=stage.small, even=stage.even, shaped=stage.shaped,
        )  # fmt: skip
        shorter = replace(limits, longest=max(2, round(limits.longest * 0.75)))  # paragraphs: 30 characters of 40
        examples: list[Example] = []
        tasks: list[str] = []
        patches = tokens = 0
        while True:
            kind = rng.choices(list(stage.mix), list(stage.mix.values()))[0]
            example = self.drawing.example(KINDS[kind](rng, shorter if kind == "paragraph" else limits))
            patches, tokens = patches + len(example.patches), tokens + len(example.ids)
            if not self.capacity.holds(patches, tokens, len(examples) + 1):
                break
            examples.append(example)
            tasks.append(kind)
        batch = pack(examples, self.capacity, self.side)
        batch.tasks = tasks
        return batch

    def held_out(self, kind: str, count: int, faces: tuple[Face, ...] = TRAINED) -> list[Batch]:
        """Fresh pictures, of texts that training does not draw (its seeds are numbers)."""
        rng = random.Random(f"held out {kind} {[face.name for face in faces]}")
        limits = Limits(folder=self.fonts, faces=faces, longest=30 if kind == "paragraph" else 40)
        examples = [self.drawing.example(KINDS[kind](rng, limits)) for _ in range(count)]
        batches = [pack(group, self.capacity, self.side) for group in fill(examples, self.capacity)]
        for batch in batches:
            batch.tasks = [kind] * batch.examples
        return batches
