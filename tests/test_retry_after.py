"""What a server asks to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.retry_after import retry_after_s

NOON = 1_795_953_600.0  # Sun, 29 Nov 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0), ("", 0), ("120", 120), (" 7 ", 7), ("0", 0), ("-5", 0), ("1.5", 0), ("soon", 0), ("٣", 0),
        ("Sun, 29 Nov 2026 12:01:30 GMT", 90), ("Sun, 29 Nov 2026 11:00:00 GMT", 0), ("Sunday, 29-Nov-26 12:00:10 GMT", 10),
        ("Sun, 29 Nov 2026 12:00:00 +99999999999999999999", 0), ("Sun, 29 Nov 99999999999999999999 12:00:00 GMT", 0),
        ("Sun Nov 29 12:00:10 2026", 10), ("Sun, 29 Nov 2026 13:00:10 +0100", 10),
    ],
)  # fmt: skip
def test_seconds_and_dates(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOON) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{1,9}"))
def test_nothing_that_a_server_says_breaks_it(header: str) -> None:
    assert retry_after_s(header, NOON) >= 0
