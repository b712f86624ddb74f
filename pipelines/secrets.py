"""What must not be stored, logged or shown: credentials inside URIs and inside the words of other libraries.

Invariant: pure, never raises, idempotent. `public` is also the identity of an object: a link that is signed anew every night
names the same object, and two links never become one only because a credential was taken out. Errors, log lines, reports and
ledger records pass through here, instead of each caller's good will.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote

# Parameters that sign a link or say who asks, with what only dates or limits them: the path names the object without them. Every
# repetition is bounded, so that no text costs more than its length.
_SIGNING = (
    r"x-(?:amz|goog|oss|cos)-[\w-]{1,60}|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|"
    r"sig|signature|(?:\w{1,40}[_-])?api[_-]?key|(?:\w{1,40}[_-])?password|passwd|pwd|(?:\w{1,40}[_-])?secret(?:[_-]\w{1,40})?"
)
_NAMING = r"(?:\w{1,40}[_-])?token|credentials?|auth|authorization|sas|jwt"  # may be all that tells one link from another
_SIGNS, _NAMES = re.compile(_SIGNING, re.I), re.compile(_NAMING, re.I)
_LIMITS = re.compile(r"expires|policy|se|sp|sv|sr|st|spr|sip|srt|ss|sdd|skoid|sktid|skt|ske|sks|skv", re.I)  # CloudFront, Azure
_USERINFO = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]{0,20})://(?P<info>[^/?#\s\"'<>]{0,500})@", re.I)
_IN_TEXT = re.compile(
    rf"(?P<name>(?<![\w-])(?:{_SIGNING}|{_NAMING})[\"']?\s{{0,2}}[=:]\s{{0,2}}[\"']?)(?P<value>[^\s&\"'<>,;)\]}}]+)", re.I
)
_HEADER = re.compile(r"(?P<kind>\b(?:bearer|basic)\s+)(?P<value>[A-Za-z0-9+/=._~:-]{8,})", re.I)
_HIDDEN = "***"
_DIGEST = "sha256-"  # how what stands for a credential that names something begins


def is_credential(name: str) -> bool:
    """Whether a key of this name holds a secret: `hf_token`, `api_key`, `password`."""
    return (_SIGNS.fullmatch(name) or _NAMES.fullmatch(name)) is not None


def public(uri: str) -> str:
    """A URI without user name and password, and without what signs it; others unchanged, byte for byte.

    Only `http` and `https` have queries: an object store's keys may contain `?`. A user without a password stays where it is
    a container or an account (`abfs://container@account/...`).
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not scheme.isascii():
        return uri
    web = scheme.lower() in ("http", "https")
    end = next((place for place, char in enumerate(rest) if char in ("/?#" if web else "/")), len(rest))
    info, at, host = rest[:end].rpartition("@")
    authority = host if at and (web or ":" in info) else rest[:end]
    return f"{scheme}://{authority}{_unsigned(rest[end:]) if web else rest[end:]}"


def _unsigned(path: str) -> str:
    head, _, query = path.partition("?")
    query, hash_, fragment = query.partition("#")
    pairs = [(unquote(pair.partition("=")[0]), pair) for pair in query.split("&") if pair]
    signed = any(_SIGNS.fullmatch(name) for name, _ in pairs)
    if not signed and not any(_NAMES.fullmatch(name) for name, _ in pairs):
        return path
    kept = [
        _named(pair) if _NAMES.fullmatch(name) else pair
        for name, pair in pairs
        if not _SIGNS.fullmatch(name) and not (signed and _LIMITS.fullmatch(name))
    ]
    return head + ("?" + "&".join(kept) if kept else "") + hash_ + fragment


def _named(pair: str) -> str:
    """`token=...` with a digest for the token: it names the same thing and opens nothing."""
    name, _, value = pair.partition("=")
    if value.startswith(_DIGEST):
        return pair
    return f"{name}={_DIGEST}{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def scrub(text: str) -> str:
    """Words of an error or a log line with every credential in them hidden."""
    text = _USERINFO.sub(lambda found: _userinfo(found["scheme"], found["info"]), text)
    text = _HEADER.sub(lambda found: found["kind"] + _HIDDEN, text)
    return _IN_TEXT.sub(lambda found: found["name"] + (found["value"] if found["value"].startswith(_DIGEST) else _HIDDEN), text)


def _userinfo(scheme: str, info: str) -> str:
    secret = ":" in info or scheme.lower() in ("http", "https")
    return f"{scheme}://{_HIDDEN if secret else info}@"


def hidden(text: str, *secrets: str | None) -> str:
    """Text without these values, as they stand and as a URL has them: what an answer may echo."""
    for form in {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}:
        text = text.replace(form, _HIDDEN)
    return text
