"""What a checkpoint is, by its own chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.recognize.checkpoint import PLACEHOLDER, chat_format, format_of, read_template
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
BODY = """{{- "<|begin_of_sentence|>" -}}
{%- for message in messages -%}
    {{- "User: " -}}
    {%- for part in message["content"] -%}
        {%- if part["type"] == "image" -%}{{ "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>" }}{%- endif -%}
    {%- endfor -%}
    {%- for part in message["content"] -%}
        {%- if part["type"] == "text" -%}{{ part["text"] }}{%- endif -%}
    {%- endfor -%}
    {{ "\\n" }}
{%- endfor -%}
"""


def template(end: str) -> str:
    return BODY + '{%- if add_generation_prompt -%}{{- "' + end + '" -}}{%- endif -%}'


@pytest.mark.parametrize(("end", "family"), [("Assistant: ", "v1"), ("Assistant:\\n", "v1.5")])
def test_families_differ_in_how_the_answer_begins(end: str, family: str) -> None:
    found = chat_format(template(end))
    assert found.family == family
    whole = found.prompt("Table Recognition:")
    written = end.replace("\\n", "\n")
    assert whole == f"<|begin_of_sentence|>User: <|IMAGE_START|>{PLACEHOLDER}<|IMAGE_END|>Table Recognition:\n{written}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (template("Answer: "), "v1 ends in"),
        (template("Assistant:"), "v1 ends in"),
        ("{{ messages[0]['content'][1]['text'] }}Assistant: ", "one picture"),
        ('<|IMAGE_PLACEHOLDER|><|IMAGE_PLACEHOLDER|>{{ messages[0]["content"][1]["text"] }}Assistant: ', "one picture"),
        ("{% for %}", "cannot be rendered"),
    ],
)
def test_what_no_release_has_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chat_format(text)


def test_templates_are_found_where_each_release_keeps_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        read_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template("Assistant: ")}))
    assert format_of(tmp_path).family == "v1"
    (tmp_path / "chat_template.jinja").write_text(template("Assistant:\\n"))  # what transformers writes today wins
    assert format_of(tmp_path).family == "v1.5"


def test_the_fixture_speaks_as_the_newest_release() -> None:
    assert format_of(FIXTURE).family == "v1.5"


def test_rendered_as_transformers_renders() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is in the environment of vLLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(FIXTURE)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "OCR:"}]}]
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert said == format_of(FIXTURE).prompt("OCR:")
