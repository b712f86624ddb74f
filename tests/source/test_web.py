"""http(s) links of a manifest, against a real server: one GET each, what it says of itself, and what it may not do."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pagemill
from pipelines.config import WebLimits
from pipelines.errors import ExitCode, PagemillError, SourceTooLarge, SourceUnreadable
from pipelines.source.web import WebSource, _Redirects
from pipelines.store.audit import audit
from tests.builders import pdf_bytes
from tests.conftest import inline

LIMITS = WebLimits(timeout_s=20, deadline_s=2, most_mib=1)


class Site(ThreadingHTTPServer):
    """What is behind its paths, and what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self.headers: list[dict[str, str]] = []
        self.failing = 0  # so many requests are answered 503 first
        self.retry_after = ""  # what these answers say of the next try

    def link(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_: object) -> None:
        pass  # a client that went away


class Answers(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        site, path = self.server, self.path.partition("?")[0]
        site.seen[self.command, path] += 1
        site.headers.append(dict(self.headers))
        if site.failing:
            site.failing -= 1
            return self._plain(503, {"Retry-After": site.retry_after} if site.retry_after else None)
        if path.startswith("/to/"):
            return self._plain(302, {"Location": "/" + path[4:]})
        if path == "/round":
            return self._plain(302, {"Location": "/round"})
        if path == "/file":
            return self._plain(302, {"Location": "file:///etc/hostname"})
        if path == "/nohead/a.pdf" and not body:
            return self._plain(405)
        if path == "/locked" and self.headers.get("Authorization") != "Basic bWU6b3BlbiBzZXNhbWU=":
            return self._plain(401)
        if path in ("/endless", "/slow"):
            return self._drip(path)
        data = site.files.get(path)
        if data is None:
            return self._plain(410 if path == "/gone" else 404)
        etag = site.etags.get(path)
        shown = {"ETag": f'"{etag}"'} if etag else {"Last-Modified": "Tue, 24 Nov 2026 08:00:00 GMT"}
        if path == "/short":
            self._plain(200, {**shown, "Content-Length": str(len(data))})
            self.wfile.write(data[:-9])
            self.close_connection = True
            return None
        if self.headers.get("Range") == "bytes=0-0":
            self._plain(206, {**shown, "Content-Length": "1", "Content-Range": f"bytes 0-0/{len(data)}"})
            data = data[:1]
        else:
            self._plain(200, {**shown, "Content-Length": str(len(data))})
        if body:
            self.wfile.write(data)
        return None

    def _plain(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self, path: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        until = time.monotonic() + 8
        try:
            while time.monotonic() < until:
                self.wfile.write(b"x" * (1 << 18 if path == "/endless" else 1))
                time.sleep(0 if path == "/endless" else 0.2)
        except OSError:
            pass  # the client has had enough


@contextmanager
def served() -> Iterator[Site]:
    server = Site()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with served() as server:
        yield server


def fetched(site: Site, path: str, tmp_path: Path, login: str = "", retries: int = 1) -> bytes:
    WebSource(LIMITS, retries).fetch(site.link(path, login), str(tmp_path / "got"))
    return (tmp_path / "got").read_bytes()


def test_what_a_server_says_of_an_object(site: Site) -> None:
    site.files |= {"/a.pdf": b"x" * 90, "/nohead/a.pdf": b"y" * 70, "/b c.pdf": b"z"}
    site.etags["/a.pdf"] = "v1"
    look = WebSource(LIMITS, 1)
    found = look.info(site.link("/a.pdf"))
    assert (found.size, found.etag) == (90, "v1")
    found = look.info(site.link("/nohead/a.pdf"))
    assert (found.size, found.etag) == (70, "Tue, 24 Nov 2026 08:00:00 GMT")
    assert look.info(site.link("/to/to/a.pdf")).etag == "v1"
    assert look.info(site.link("/b%20c.pdf")).uri.endswith("/b%20c.pdf")
    found = look.info(site.link("/none", "me:secret@"))
    assert (found.uri, found.size, found.etag) == (site.link("/none"), None, None)
    assert sum(count for (method, _), count in site.seen.items() if method == "GET") == 1  # where HEAD was refused


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/none", SourceUnreadable, "HTTP 404"),
        ("/gone", SourceUnreadable, "HTTP 410"),
        ("/locked", SourceUnreadable, "HTTP 401"),
        ("/round", SourceUnreadable, "HTTP 302|redirect"),
        ("/file", SourceUnreadable, "file:///etc/hostname.* is not allowed"),
        ("/endless", SourceTooLarge, "source.web_max_mib is 1"),
        ("/large", SourceTooLarge, "2097152 bytes"),
        ("/slow", SourceUnreadable, "source.web_deadline_s=2"),
        ("/short", SourceUnreadable, "ended after 91 of 100 bytes"),
    ],
)
def test_what_a_server_may_not_do(site: Site, tmp_path: Path, path: str, error: type[PagemillError], words: str) -> None:
    site.files |= {"/large": bytes(2 << 20), "/short": bytes(100)}
    with pytest.raises(error, match=words) as caught:
        fetched(site, path, tmp_path, "me:wrong@" if path == "/locked" else "", retries=0)
    assert caught.value.transient is (error is SourceUnreadable)
    assert "wrong" not in str(caught.value)


def test_answers_that_are_asked_again_and_logins_that_stay_home(site: Site, tmp_path: Path) -> None:
    site.files["/a.pdf"] = site.files["/locked"] = b"whole"
    site.failing = 2
    assert fetched(site, "/to/a.pdf", tmp_path, "me:open%20sesame@", retries=3) == b"whole"
    assert [("Authorization" in headers) for headers in site.headers] == [True, True, True, False]  # not past the redirect
    assert fetched(site, "/locked", tmp_path, "me:open%20sesame@") == b"whole"
    with pytest.raises(SourceUnreadable, match=r"after 1 tries"):
        WebSource(LIMITS, 0).fetch("http://127.0.0.1:9/a.pdf", str(tmp_path / "got"))
    import urllib.request
    from email.message import Message
    from urllib.error import HTTPError

    secure = urllib.request.Request("https://example.org/a.pdf")
    with pytest.raises(HTTPError, match="redirect to http is not followed"):
        _Redirects().redirect_request(secure, io.BytesIO(), 302, "", Message(), "http://example.org/a.pdf")


def test_a_server_that_says_when_to_ask_again_is_not_asked_before(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/a.pdf"] = b"whole"
    site.failing, site.retry_after = 1, "1"
    began = time.monotonic()
    assert fetched(site, "/a.pdf", tmp_path) == b"whole"
    assert time.monotonic() - began >= 1.0
    assert site.seen["GET", "/a.pdf"] == 2
    monkeypatch.setattr("pipelines.source.web._PATIENCE_S", 0.2)
    site.failing, site.retry_after = 1, "864000"  # ten days: it is asked again after what one is willing to wait
    assert fetched(site, "/a.pdf", tmp_path) == b"whole"


def test_a_server_that_asks_for_patience_does_not_hold_up_the_looks_at_others(site: Site) -> None:
    """One planner looks at every link: a minute's wait for each of a thousand would be hours."""
    site.failing, site.retry_after = 100, "864000"
    began = time.monotonic()
    assert WebSource(LIMITS, retries=3).info(site.link("/a.pdf")).etag is None
    assert sum(site.seen.values()) == 4
    assert time.monotonic() - began < 60  # one wait alone would be that


def test_a_manifest_of_links(site: Site, tmp_path: Path) -> None:
    output, one, two = tmp_path / "out", pdf_bytes(["one", "more"]), pdf_bytes(["two"])
    site.files |= {"/one.pdf": one, "/two": two}
    site.etags |= {"/one.pdf": "v1", "/two": "v1"}
    manifest = tmp_path / "links.csv"
    links = [site.link("/one.pdf"), site.link("/two?X-Amz-Signature=abc123secret&v=7"), site.link("/none.pdf")]
    manifest.write_text("\n".join(["url", *links]) + "\n")
    ended = inline(manifest, output, source__span_pages=1)
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert [(failure.uri, failure.code) for failure in ended.summary.failures] == [(links[2], "SOURCE_UNREADABLE")]
    assert [site.seen["GET", path] for path in ("/one.pdf", "/two")] == [1, 1]
    sources = {row["uri"]: row for row in pagemill.read(str(output), "sources").to_pylist()}
    assert set(sources) == {links[0], site.link("/two?v=7"), links[2]}
    assert (sources[links[0]]["etag"], sources[links[0]]["size"]) == ("v1", len(one))
    assert not [file for file in output.rglob("*") if file.is_file() and b"abc123secret" in file.read_bytes()]

    # the same object behind a link that was signed anew is done; what changed is fetched again
    manifest.write_text("\n".join(["url", *links[:2]]).replace("abc123secret", "anothersecret") + "\n")
    assert inline(manifest, output).summary.status == "nothing_to_do"
    site.files["/one.pdf"], site.etags["/one.pdf"] = pdf_bytes(["one changed"]), "v2"
    assert inline(manifest, output).summary.listed["changed"] == 1
    assert [site.seen["GET", path] for path in ("/one.pdf", "/two")] == [2, 1]
    assert len(pagemill.read(str(output), "documents", history=True)) == 3
    assert audit(str(output)).ok


def test_a_link_as_the_source_and_a_manifest_behind_one(site: Site, tmp_path: Path) -> None:
    site.files |= {"/one.pdf": pdf_bytes(["one", "two", "three"])}
    site.files["/list.csv"] = f"uri,pages\n{site.link('/one.pdf')},2\n".encode()
    assert inline(site.link("/list.csv"), tmp_path / "some").summary.pages.total() == 1
    assert inline(site.link("/one.pdf"), tmp_path / "all").summary.pages.total() == 3
