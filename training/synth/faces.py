"""The type faces that synthetic documents are set in, all from packages on PyPI (extra `train`).

Invariant: a face that is `held_out` is never drawn for training; what is measured on it is reading of an unseen face.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont, features


@dataclass(slots=True, frozen=True)
class Face:
    name: str
    origin: str  # package:key
    weight: float = 1.0  # how often it is drawn, relative to the others
    held_out: bool = False
    greek: bool = False  # has the glyphs that formulas need


FACES: dict[str, Face] = {
    face.name: face
    for face in (
        # the base fonts of PDF, as PyMuPDF draws them
        Face("nimbus-sans", "pymupdf:helv", 2.5),
        Face("nimbus-sans-bold", "pymupdf:hebo"),
        Face("nimbus-sans-italic", "pymupdf:heit"),
        Face("nimbus-roman", "pymupdf:tiro", 2.5),
        Face("nimbus-roman-bold", "pymupdf:tibo"),
        Face("nimbus-roman-italic", "pymupdf:tiit"),
        Face("nimbus-mono", "pymupdf:cour", 1.5),
        Face("nimbus-mono-bold", "pymupdf:cobo"),
        Face("dejavu-sans", "matplotlib:DejaVuSans", 2.0, greek=True),
        Face("dejavu-sans-bold", "matplotlib:DejaVuSans-Bold"),
        Face("dejavu-sans-oblique", "matplotlib:DejaVuSans-Oblique", 0.5),
        Face("dejavu-serif", "matplotlib:DejaVuSerif", 1.5, greek=True),
        Face("dejavu-serif-bold", "matplotlib:DejaVuSerif-Bold", 0.5),
        Face("dejavu-mono", "matplotlib:DejaVuSansMono"),
        Face("stix", "matplotlib:STIXGeneral", 1.5, greek=True),
        Face("stix-italic", "matplotlib:STIXGeneralItalic", 0.7),
        Face("fira-go", "pymupdf:figo"),
        Face("fira-go-bold", "pymupdf:figbo", 0.5),
        Face("fira-mono", "pymupdf:fimo", 0.7),
        Face("ubuntu", "pymupdf:ubuntu"),
        Face("ubuntu-mono", "pymupdf:ubuntm", 0.7),
        Face("cascadia-mono", "pymupdf:cascadia", 0.7),
        Face("source-sans", "font_source_sans_pro:SourceSansPro-Regular.ttf"),
        Face("source-sans-semibold", "font_source_sans_pro:SourceSansPro-Semibold.ttf", 0.5),
        Face("source-serif", "font_source_serif_pro:SourceSerifPro-Regular.ttf"),
        Face("source-serif-semibold", "font_source_serif_pro:SourceSerifPro-Semibold.ttf", 0.5),
        Face("roboto", "font_roboto:Roboto-Regular.ttf"),
        Face("roboto-bold", "font_roboto:Roboto-Bold.ttf", 0.5),
        Face("manrope", "font_manrope:Manrope-Regular.ttf", 0.7),
        Face("hanken-grotesk", "font_hanken_grotesk:HankenGrotesk-Regular.otf", 0.7),
        Face("noto-sans", "pymupdf:notos", held_out=True),
        Face("caladea", "font_caladea:Caladea-Regular.ttf", held_out=True),
    )
}
TRAINED = tuple(face for face in FACES.values() if not face.held_out)
HELD_OUT = tuple(face for face in FACES.values() if face.held_out)


def _of_pymupdf(key: str) -> bytes:
    import pymupdf  # finds those of pymupdf-fonts by itself

    return bytes(pymupdf.Font(key).buffer)


def _of_matplotlib(key: str) -> bytes:
    import matplotlib

    return (Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{key}.ttf").read_bytes()


def load(face: Face, folder: Path | None = None) -> bytes:
    """The face's font file: out of `folder` where one is given (see `export`), else out of its package.

    Raises:
        ModuleNotFoundError: the package is missing; the extra `train` brings it.
    """
    if folder is not None:
        return (folder / f"{face.name}.font").read_bytes()
    package, _, key = face.origin.partition(":")
    loaders: dict[str, Callable[[str], bytes]] = {
        "pymupdf": _of_pymupdf,
        "matplotlib": _of_matplotlib,
    }
    if package in loaders:
        return loaders[package](key)
    found = importlib.import_module(package).__file__
    assert found is not None
    return (Path(found).parent / "files" / key).read_bytes()


def export(folder: Path) -> None:
    """Writes every face into `folder`, for a machine that has the folder and not the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    for face in FACES.values():
        (folder / f"{face.name}.font").write_bytes(load(face))


@cache
def _bytes(name: str, folder: Path | None) -> bytes:
    return load(FACES[name], folder)


def font(face: Face, size: int, folder: Path | None = None, shaped: bool = False) -> ImageFont.FreeTypeFont:
    """The face at `size` pixels to the em, laid out without kerning tables of OpenType (the same on every machine).

    `shaped`: with its ligatures, for which Pillow needs libfribidi.

    Raises:
        OSError: `shaped`, and there is no libfribidi.
    """
    if shaped and not features.check("raqm"):
        raise OSError("Pillow finds no libfribidi (Debian: apt install libfribidi0), which draws ligatures")
    layout = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(io.BytesIO(_bytes(face.name, folder)), size, layout_engine=layout)
