"""What the small model learns from: the same documents for the same seed, answers in the checkpoint's own tokens."""

from __future__ import annotations

import hashlib
import random
import string
from pathlib import Path

import pytest
from PIL import features

from tests.conftest import ROOT
from training.synth import texts
from training.synth.faces import FACES, HELD_OUT, TRAINED

pytest.importorskip("pymupdf_fonts", reason="the training's type faces are in the extra `synth`")
pytest.importorskip("tokenizers", reason="tokenizers is in the environment of vLLM")

from training.batches import Capacity
from training.synth.pictures import Limits, _pen
from training.synth.stream import CLASSES, CURRICULUM, KINDS, SECOND, Stream

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream(FIXTURE, Capacity(4096, 3072, 64, 1024), 1000, 7, 16, 784, 200_704)


def test_ninety_printable_characters_in_many_faces() -> None:
    assert len(set(texts.ALPHABET)) == 90
    assert set(texts.ALPHABET) <= set(string.printable)
    assert len({face.name.partition("-")[0] for face in TRAINED}) >= 8
    assert not {face.name for face in TRAINED} & {face.name for face in HELD_OUT}
    assert len(HELD_OUT) >= 2
    assert len(FACES) == len(TRAINED) + len(HELD_OUT)


def test_lines_keep_to_their_length_and_alphabet() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        length = rng.randint(1, 40)
        line = texts.line(rng, length)
        assert 1 <= len(line) <= length
        assert set(line) <= set(texts.ALPHABET)
        assert line == line.strip()
        assert "  " not in line


def test_a_batch_is_a_function_of_seed_and_number(stream: Stream) -> None:
    """The texts of the committed recipe: if this changes, the fixture's documents are others than those it learnt from."""

    def digest(number: int) -> str:
        batch = stream.batch(number)
        said = batch.labels[(batch.labels >= 0) & (batch.sequence < 10)]  # how many fit depends on a face's widths
        return hashlib.sha256(said.tobytes()).hexdigest()[:12]

    assert digest(5) == digest(5) != digest(6)
    assert [digest(number) for number in (5, 700)] == ["cbc5a4e1cd90", "f3884b66a09f"]


@pytest.mark.skipif(not features.check("raqm"), reason="no libfribidi here, which Pillow draws ligatures with")
def test_the_second_training_draws_ligatures_and_small_type() -> None:
    from training.synth.canvas import Pen, Sheet

    text = "affine flow better"
    for name in ("manrope", "dejavu-sans"):
        plain, shaped = (Pen(FACES[name], 24, 2, None, how) for how in (False, True))
        assert "".join(shaped.pieces(text)) == text
        assert {"ffi", "fl", "tt"} <= set(shaped.pieces(text))
        pressed = []
        for pen in (plain, shaped):
            sheet = Sheet(400, 40, 2)
            places = sheet.text(pen, 4, 30, text)
            assert len(places) == len(text)
            assert [x for x, _ in places] == sorted(x for x, _ in places)
            pressed.append(sheet._ink)
        assert (pressed[0] != pressed[1]).any(), name
    wide = Pen(FACES["fira-mono"], 20, 1, None, False, 1.5)
    assert wide.width("abcd") == pytest.approx(Pen(FACES["fira-mono"], 20, 1, None).width("abcd") + 6)
    (stage,) = SECOND
    assert set(stage.mix) == set(KINDS)
    rng, limits = random.Random(5), Limits(small=stage.small, even=True, shaped=True)
    pens = [_pen(rng, limits) for _ in range(2000)]
    assert 0.5 < sum(pen.size <= 18 for pen in pens) / len(pens) < 0.7  # 0.4, and three tenths of the others
    assert {pen.face.name for pen in pens} == {face.name for face in TRAINED}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_answers_are_the_tokenizers_own_tokens(stream: Stream, kind: str) -> None:
    rng = random.Random(kind)
    encoder = stream.drawing._encoder
    for _ in range(150):
        picture = KINDS[kind](rng, Limits())
        assert len(picture.places) == len(picture.tokens)
        example = stream.drawing.example(picture)
        learnt = [int(t) for t, label in zip(example.ids, example.labels, strict=True) if label >= 0]
        assert learnt == [*encoder.tokens(picture.answer), encoder.end_token]
        assert encoder.tokenizer.decode(learnt[:-1], skip_special_tokens=True) == picture.answer


def test_the_training_aid_knows_where_characters_are(stream: Stream) -> None:
    rng = random.Random(3)
    shown = drawn = 0
    for _ in range(50):
        picture = KINDS["line"](rng, Limits(disorder=0.0))
        marks = stream.drawing.example(picture).marks
        assert marks is not None
        seen = sorted(int(mark) for mark in marks.flatten() if mark)
        said = sorted(CLASSES[token] for token in picture.tokens if token in CLASSES)
        assert set(seen) <= set(said)
        shown, drawn = shown + len(seen), drawn + len(said)
    assert shown > 0.99 * drawn  # narrow letters may stand five to a patch


def test_the_curriculum_ends_with_everything() -> None:
    last = CURRICULUM[-1]
    assert last.until == 1.0
    assert set(last.mix) == set(KINDS)
    assert (last.longest, last.lines, last.cells, last.smallest) == (40, 4, 4, 14)
    assert [stage.until for stage in CURRICULUM] == sorted(stage.until for stage in CURRICULUM)


def test_every_face_draws_the_whole_alphabet() -> None:
    from training.synth.canvas import Pen

    for face in FACES.values():
        glyphs = Pen(face, 40, 1, None).glyphs
        missing = glyphs["\ue123"].ink  # no face has this one
        for character in texts.ALPHABET.replace(" ", ""):
            ink = glyphs[character].ink
            assert ink.max(initial=0) > 0, (face.name, character)
            assert ink.shape != missing.shape or (ink != missing).any(), (face.name, character)


def test_faces_can_be_carried_as_files(tmp_path: Path) -> None:
    from training.synth import faces

    faces.export(tmp_path)
    assert {p.stem for p in tmp_path.iterdir()} == set(FACES)
    assert faces.load(FACES["stix"], tmp_path) == faces.load(FACES["stix"])
