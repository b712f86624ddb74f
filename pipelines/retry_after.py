"""How long a server asks to be left alone: the header Retry-After of 429 and 503 (RFC 9110, section 10.2.3).

Invariant: pure, never raises; what cannot be understood asks for nothing. Callers bound what they are willing to wait.
"""

from __future__ import annotations

import datetime
from email.utils import parsedate_to_datetime


def retry_after_s(header: str | None, now: float) -> float:
    """Seconds from `now` (time.time()): of a number of them, or of a date, which may have passed; 0 for no header."""
    said = (header or "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, OverflowError):  # the second: a year, or an offset, of many digits
        return 0.0
    if date.tzinfo is None:  # "-0000", or none at all: HTTP's dates are in GMT
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, date.timestamp() - now)
