"""Nothing that opens a door is written down: in no log, report, ledger or part, in no message, not in Ray's own files."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import load
from pipelines.errors import ConfigError, SourceUnreachable
from pipelines.observe.log import EventLog, configure, value_text
from pipelines.recognize.base import Crop, Sampling
from pipelines.schema import PageError
from pipelines.secrets import public, scrub
from pipelines.store.objects import ObjectStore
from tests.builders import pdf_bytes
from tests.conftest import Driver
from tests.s3server import S3

SIGNED = {
    "https://b.s3.amazonaws.com/a%20b.pdf?X-Amz-Algorithm=A&X-Amz-Credential=AKIA/x&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-Signature=zqSec":
        "https://b.s3.amazonaws.com/a%20b.pdf",
    "https://a.blob.core.windows.net/c/a.pdf?sv=2024&se=2026&sp=r&sig=zqSec%3D": "https://a.blob.core.windows.net/c/a.pdf",
    "https://d.cloudfront.net/a.pdf?Expires=1&Signature=zqSec&Key-Pair-Id=K&v=2": "https://d.cloudfront.net/a.pdf?v=2",
    "https://storage.googleapis.com/b/a.pdf?GoogleAccessId=g&Expires=1&Signature=zqSec": "https://storage.googleapis.com/b/a.pdf",
    "http://user:zqSec@host:80/a.pdf?id=3#p": "http://host:80/a.pdf?id=3#p",
    "https://zqSec@host/a.pdf": "https://host/a.pdf",
    "http://user:5@ec@host/a.pdf": "http://host/a.pdf",
    "sftp://user:zqSec@host/a.pdf": "sftp://host/a.pdf",
    "https://host/a.pdf?api_key=zqSec&page=1": "https://host/a.pdf?page=1",
}  # fmt: skip
PLAIN = ["/in/a.pdf", "/in/a?sig=1@b:c.pdf", "s3://bucket/a?token=1@x:y", "abfs://container@account/a.pdf", "file:///in/%FF",
         "", "https://host/a?id=3&se=1&policy=x", "s3://arn:aws:s3:eu:1:accesspoint/x/a.pdf", "https://host/?q=@b:c"]  # fmt: skip


def test_a_links_identity_outlives_its_signature() -> None:
    assert {signed: public(signed) for signed in SIGNED} == SIGNED
    assert [public(uri) for uri in PLAIN] == PLAIN


def test_two_links_never_become_one() -> None:
    """A token may be all that tells two documents apart: what stands for it differs too, and does not open anything."""
    one, other = (public(f"https://host/get?token={secret}") for secret in ("zqSec-one", "zqSec-two"))
    assert one != other
    assert "zqSec" not in one
    assert public(one) == one
    assert scrub(one) == one


@given(st.one_of(st.sampled_from([*SIGNED, *PLAIN]), st.text()), st.text(max_size=20))
def test_hiding_never_fails_and_is_done_at_once(uri: str, around: str) -> None:
    assert public(public(uri)) == public(uri)
    once = scrub(around + uri + around)
    assert scrub(once) == once


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece", ["a", "a_", "a-", "http://", "a@", "bearer ", "token=", "secret_", "x-amz-", "secret-a_", "://a:"]
)
def test_no_text_costs_more_than_its_length(piece: str) -> None:
    """A million characters of what the patterns look for; quadratic, it would be hours."""
    text = piece * (1_000_000 // len(piece))
    assert scrub(text)
    assert public("https://h/?" + text)


WORDS = [f"ClientResponseError: 403, message='Forbidden', url='{uri}'" for uri in SIGNED] + [
    "Could not connect to the endpoint URL: http://minio:zqSec@host:9000/bucket",
    "401 Authorization: Bearer zqSec0123456789", "{'aws_secret_access_key': 'zqSec/x', 'aws_session_token': \"zqSec\"}",
    "password=zqSec",
    "PASSWD: zqSec",
]  # fmt: skip


def test_words_of_other_libraries_lose_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    log = EventLog()
    for words in WORDS:
        assert "zqSec" not in str(SourceUnreachable(words)), words
        assert "zqSec" not in PageError("X", "fetch", words).message
        assert "zqSec" not in value_text(words)
        log.warning("some_event", error=RuntimeError(words), document="d")
        logging.getLogger("pagemill").warning("of a library: %s", words)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2 * len(WORDS)
    assert "zqSec" not in said


def test_a_line_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "20261124T000000Z-abcdef")
    EventLog().info(
        "page_failed", document="d", span="1-8", error='a "b"\npagemill: forged=1\x1b[2J\u2028\x9b', at=None, seconds=1.25
    )
    configure("warning")
    (line,) = capsys.readouterr().err.splitlines()
    head, _, rest = line.partition(" page_failed ")
    assert head.startswith("pagemill: 2")
    assert head.endswith("Z INFO")
    assert rest.startswith('run=20261124T000000Z-abcdef document=d span=1-8 error="a \\"b\\"\\npagemill: forged=1\\u001b[2J')
    assert rest.endswith("seconds=1.250")


def test_a_configuration_shows_no_secret_and_no_message_repeats_one() -> None:
    config = load(
        settings=[
            "source.passwords=[zqSec]", "store.storage_options={secret: zqSec, client_kwargs: {aws_session_token: zqSec}}",
            "server.url=https://user:zqSec@host/v1?api_key=zqSec", "vllm.engine_args={hf_token: zqSec, seed: 1}",
            "vllm.model_dir='https://host/m?X-Amz-Signature=zqSec'", "source.storage_options={password: zqSec}",
        ]
    )  # fmt: skip
    shown = config.as_yaml()
    assert "zqSec" not in shown
    assert yaml.safe_load(shown)["vllm"]["engine_args"] == {"hf_token": "<set>", "seed": 1}
    for wrong in (
        "source.passwords=zqSec", "source.passwords=[zqSec", "source.pasword=zqSec", "passwords=zqSec",
        "store.storage_options=zqSec",
        "vllm.engine_args=[zqSec]", "store.storage_options={'zqSec", "nothing.at_all=zqSec",
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load(settings=[wrong])
        assert "zqSec" not in str(caught.value), wrong


class _Parrot(BaseHTTPRequestHandler):
    """A model server that refuses, and repeats the key that it was given."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(200, b'{"data": [{"id": "model"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(401, f"Incorrect API key provided: {self.headers['Authorization'].split()[1]}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def parrot() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Parrot)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_a_server_that_repeats_the_key(parrot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.recognize.openai_engine import OpenAiEngine

    monkeypatch.setenv("OPENAI_API_KEY", "zqSec-key-of-nobody")
    engine = OpenAiEngine(load(settings=[f"server.url={parrot}", "server.retries=0"]))

    async def ask() -> str:
        answer = await engine.answer(Crop((0,), np.zeros((28, 28, 3), np.uint8), "ocr", "OCR:", 784, 784, Sampling()))
        engine.close()
        await asyncio.sleep(0)
        return answer.error_message

    said = asyncio.run(ask())
    assert "HTTP 401: Incorrect API key provided: ***" in said


def stored(output: str, options: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Every object of an output as text, Parquet decoded."""
    store = ObjectStore(output, options)
    for key in store.list():
        data = store.get(key)
        yield key, key
        yield (
            key,
            (str(pq.read_table(io.BytesIO(data)).to_pylist()) if key.endswith(".parquet") else data.decode("utf-8", "replace")),
        )


def test_a_run_leaves_no_secret_anywhere(driver: Driver, s3: S3, tmp_path: Path) -> None:
    """Through Ray, to S3, with every line logged: keys, a session token, passwords right and wrong."""
    import pymupdf
    import ray

    source = tmp_path / "in"
    source.mkdir()
    (source / "plain.pdf").write_bytes(pdf_bytes(["words"]))
    for name, password in (("open", "zqSec-opens"), ("closed", "zqSec-unknown")):
        document = pymupdf.open("pdf", pdf_bytes(["locked words"]))
        data = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password, owner_pw=f"{password}-own")
        (source / f"{name}.pdf").write_bytes(data)
    options = {"endpoint_url": s3.faulty, "key": "zqSecKEYID", "secret": "zqSec/secret+key", "token": "zqSec-session-token"}
    output = s3.bucket() + "/out"
    s3.fault("slowdown", "PUT", "/pages/", 2)
    s3.fault("slowdown", "PUT", "/ledger/", 1)
    conf = tmp_path / "secret.yaml"
    conf.write_text(
        yaml.safe_dump({"source": {"passwords": ["zqSec-wrong", "zqSec-opens"]}, "store": {"storage_options": options}})
    )
    settings: dict[str, object] = {"observe.log_level": "debug", "observe.report_pages": 5, "ray.workers": 1}
    code, said = driver.run(str(source), output, "--conf", str(conf), settings=settings)
    assert code == 3, said  # one stays encrypted
    assert "request_retried" in said
    assert " run_ended run=" in said
    told = [("terminal", said), *stored(output, options)]
    assert len(told) > 20
    session = Path(ray._private.worker._global_node.get_logs_dir_path())  # of the cluster that the driver joined
    told += [(str(path), path.read_text("utf-8", "replace")) for path in session.rglob("*") if path.is_file()]
    assert "block_read run=" in "".join(text for name, text in told if "worker" in name), "no worker's log was looked at"
    assert [name for name, text in told if "zqSec" in text] == []


def test_a_source_with_a_password_in_it_is_named_without(tmp_path: Path) -> None:
    from tests.conftest import inline

    ended = inline("http://user:zqSec@127.0.0.1:9/archive/", tmp_path / "out")
    text = json.dumps(ended.summary.as_dict(), default=str)
    assert ended.exit_code != 0
    assert "zqSec" not in text
    for key, found in stored(str(tmp_path / "out"), {}):
        assert "zqSec" not in found, key
    assert "http://127.0.0.1:9/archive/" in text
