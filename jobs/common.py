"""What all jobs share: common options, and errors that end in their exit code.

Invariant: a named error prints one line with its code and what to do, never a traceback; any other is a bug and shows it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipelines.errors import OutputUnwritable, PagemillError
from pipelines.observe.log import printable

if TYPE_CHECKING:
    from pipelines.store.publishing import HeldBack

Conf = Annotated[list[str] | None, typer.Option("--conf", help="YAML file over the defaults; may be given more than once")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the files")]

Unpublished = Annotated[
    bool, typer.Option("--unpublished", help="also what runs read whose canaries drifted, before `pagemill publish`")
]
Manifest = Annotated[
    str | None, typer.Option("--manifest", help="whose rows have the documents' passwords and signed links; docs/manifest.md")
]
OutputArgument = Annotated[str, typer.Argument(help="folder or URI of the results")]


def say_held_back(held: HeldBack) -> None:
    """For who reads what is published: that there is more."""
    if held.documents:
        noun = "document or a newer reading of it" if held.documents == 1 else "documents or newer readings of them"
        print(f"note: {held.documents} {noun} held back: {held.words()}", file=sys.stderr)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """While a file or folder of this machine is written that the user named.

    Raises:
        OutputUnwritable: the system's own words.
    """
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(f"cannot write {place}: {error}") from error


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command as Typer understands it: each parameter that is annotated by a dataclass is that one's fields."""
    groups = {name: kind for name, kind in get_type_hints(command).items() if is_dataclass(kind) and isinstance(kind, type)}
    if not groups:
        return command
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        own = inspect.signature(groups[name], eval_str=True).parameters.values() if name in groups else (parameter,)
        shown += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]

    @wraps(command)
    def call(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in shown}
    return call


def guarded(command: Callable[..., None], context: dict[str, Any] | None = None) -> None:
    """Runs one command as a program; `context`: settings of its parser."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=context)(expanded(command))
    run_app(app)


def run_app(app: typer.Typer) -> None:
    try:
        app()
    except PagemillError as error:
        print("\n".join(map(printable, f"pagemill: {error.code}: {error}".split("\n"))), file=sys.stderr)
        sys.exit(error.exit_code)
