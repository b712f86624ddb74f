"""What a PaddleOCR-VL checkpoint directory is: its chat template, and by it the family of its weights.

The three releases share one architecture and differ in the words before the answer: v1 was trained with `Assistant: `,
1.5 and 1.6 with `Assistant:` and a line break. A reader that takes the wrong one gets worse text and no error.
Invariant: the template that the checkpoint carries is rendered, never guessed from a name; one that is neither is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipelines.errors import ConfigError

PLACEHOLDER = "<|IMAGE_PLACEHOLDER|>"
_MARK = "<<question>>"
_IMAGE = {"type": "image", "image": "crop"}

Family = Literal["v1", "v1.5"]  # v1.5: 1.5 and 1.6, which no file of theirs tells apart
GENERATION: dict[str, Family] = {"Assistant: ": "v1", "Assistant:\n": "v1.5"}


@dataclass(slots=True, frozen=True)
class ChatFormat:
    """The words around a picture and a question."""

    family: Family
    before: str  # up to the picture's placeholder
    between: str  # from the placeholder to the question
    after: str  # from the question to where the answer begins

    def prompt(self, question: str) -> str:
        """The whole prompt with one placeholder for the picture."""
        return f"{self.before}{PLACEHOLDER}{self.between}{question}{self.after}"


def read_template(folder: Path) -> str:
    """The checkpoint's chat template, wherever that release keeps it.

    Raises:
        ConfigError: it has none.
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text("utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        file = folder / name
        found = json.loads(file.read_text("utf-8")).get("chat_template") if file.is_file() else None
        if isinstance(found, str):
            return found
    raise ConfigError(
        f"{folder}: no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json): copy it from the "
        "released model that these weights were trained from"
    )


def chat_format(template: str) -> ChatFormat:
    """Renders a template once and takes it apart. Pure: the same text gives the same format.

    Raises:
        ConfigError: it cannot be rendered, leaves out the picture or the question, or ends as no release does.
    """
    rendered = render(template, [{"role": "user", "content": [_IMAGE, {"type": "text", "text": _MARK}]}])
    before, image, rest = rendered.partition(PLACEHOLDER)
    between, mark, after = rest.partition(_MARK)
    if not image or not mark or PLACEHOLDER in rest:
        raise ConfigError(f"the chat template does not put one picture before the question: {rendered!r}")
    for generation, family in GENERATION.items():
        if after.endswith(generation):
            return ChatFormat(family, before, between, after)
    raise ConfigError(
        f"the chat template ends in {after[-24:]!r}; v1 ends in 'Assistant: ', 1.5 and 1.6 in 'Assistant:\\n': "
        "is this a PaddleOCR-VL?"
    )


def render(template: str, messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
    """As transformers renders it.

    Raises:
        ConfigError: jinja2 refuses the template.
    """
    try:
        made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        return made.render(messages=messages, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise ConfigError(f"the chat template cannot be rendered: {error}") from None


def format_of(folder: Path) -> ChatFormat:
    """Of a checkpoint directory.

    Raises:
        ConfigError: see `read_template` and `chat_format`.
    """
    try:
        return chat_format(read_template(folder))
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None
