"""Texts that nobody wrote: pseudo-words, numbers, codes and random characters over 90 printable characters.

Invariant: what several faces draw alike is decided by its surroundings: a capital I begins a word before a consonant or
stands among capitals, a small l is never first in a word but before a vowel, and neither is drawn at random.
"""

from __future__ import annotations

import random
import string

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]_{}"
ALPHABET = string.ascii_letters + string.digits + PUNCTUATION + " "  # 90 characters
assert len(ALPHABET) == 90

_AT_RANDOM = [c for c in ALPHABET if c not in "Il "]
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def _words(text: str) -> list[str]:
    return text.split()


_ONSETS = _words(
    "b c d f g h j k l m n p qu r s t v w y z bl br ch cl cr dr fl fr gl gr pl pr sc sh sk sl sm sn sp st str sw th tr tw wh x"
)
_VOWELS = _words("a a a e e e e i i o o o u u y ai au ea ee ei ia ie io oa oi oo ou")
_FIRST_VOWELS = _words("a a e e i o u ea oa")
_CODAS = ["", "", "", ""]
_CODAS += _words("b c d d f g k l l m n n n p r r s s t t v w x z ck ct ff ft ld ll lt mb mp nd ng nk nt rd rk rm rn rt")
_CODAS += _words("sh sk ss st tch th ts ps")
_COMMON = _words(
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were "
    "when we there can an your which their said if do will each about how up out them then she many some so these would "
    "other into has more two like him see time could no make than first been its who now people my made over did down only "
    "way find use may water long little very after words called just where most know page line table total amount price "
    "date name number invoice report figure section chapter item value order form city street country company annual "
    "quarter model method result summary introduction conclusion reference index note paid due tax sum unit rate change"
)


def _pseudo_word(rng: random.Random) -> str:
    parts = []
    for nth in range(rng.choices((1, 2, 3), (4, 4, 1))[0]):
        starts_with_vowel = nth == 0 and rng.random() < 0.18
        parts.append("" if starts_with_vowel else rng.choice(_ONSETS))
        parts.append(rng.choice(_FIRST_VOWELS if starts_with_vowel else _VOWELS))
        parts.append(rng.choice(_CODAS))
    word = "".join(parts)
    return word + rng.choice("nrst") if len(word) == 1 else word


def word(rng: random.Random) -> str:
    """One word: small letters, capitalised, or all capitals."""
    plain = rng.choice(_COMMON) if rng.random() < 0.25 else _pseudo_word(rng)
    case = rng.random()
    if case < 0.62:
        return plain
    return plain.capitalize() if case < 0.86 else plain.upper()


def number(rng: random.Random) -> str:
    """An amount, a date, a share, a code: what stands in tables and letterheads."""
    kind = rng.randrange(9)
    n = rng.randrange(10 ** rng.randint(1, 7))
    if kind <= 1:
        return str(n)
    if kind == 2:
        return f"{n:,}"
    if kind == 3:
        return f"{rng.choice(['', '-', '+', '$'])}{n / 100:.{rng.randint(1, 3)}f}"
    if kind == 4:
        return f"{rng.randrange(1000) / 10:.1f}%"
    if kind == 5:
        sep = rng.choice("-/.")
        return f"{rng.randint(1900, 2099)}{sep}{rng.randint(1, 12):02d}{sep}{rng.randint(1, 28):02d}"
    if kind == 6:
        return f"{rng.randint(1, 31)}/{rng.randint(1, 12)}/{rng.randint(0, 99):02d}"
    if kind == 7:
        return f"{''.join(rng.choices(_CODE_LETTERS, k=rng.randint(1, 3)))}{rng.choice(['-', '', '/'])}{n % 10000}"
    return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"


def _dressed(rng: random.Random, plain: str) -> str:
    """A word with what punctuation does to words."""
    how = rng.random()
    if how < 0.62:
        return plain
    if how < 0.82:
        return plain + rng.choice(",,,...;:!?")
    if how < 0.90:
        pair = rng.choice(["()", "[]", "{}", "<>", '""', "''"])
        return pair[0] + plain + pair[1]
    if how < 0.94:
        return plain + rng.choice("-/_&+=@") + word(rng)
    if how < 0.97:
        return plain + "'" + rng.choice("stdm")
    return rng.choice("#*&@$") + plain


def _random_characters(rng: random.Random, length: int) -> str:
    out = rng.choice(_AT_RANDOM)
    while len(out) < length:
        space = rng.random() < 0.12 and out[-1] != " " and len(out) + 1 < length
        out += " " if space else rng.choice(_AT_RANDOM)
    return out


def line(rng: random.Random, length: int, disorder: float = 0.25) -> str:
    """A line of `length` characters or a few less, never empty; a share of `disorder` is random characters."""
    if length <= 2 or rng.random() < disorder:
        return _random_characters(rng, length)
    numbers = rng.choice((0.05, 0.05, 0.2, 0.7))
    out = ""
    while True:
        token = number(rng) if rng.random() < numbers else _dressed(rng, word(rng))
        longer = f"{out} {token}" if out else token
        if len(longer) > length:
            break
        out = longer
    # a line that no word fits in is filled up with a number, whose beginning is one too
    return out or str(rng.randrange(10 ** (length - 1), 10**length))


def cell(rng: random.Random) -> str:
    """What stands in a cell of a table: up to 10 characters, mostly one token."""
    for _ in range(8):
        text = number(rng) if rng.random() < 0.55 else word(rng)
        if len(text) <= 10:
            return text
    return str(rng.randrange(1000))
