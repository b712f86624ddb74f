"""`pagemill config show`: the configuration as a run would see it."""

from __future__ import annotations

import typer

from jobs.common import BackendConfig, Conf, PaddlexConfig, PipelineVersion, Settings, configuration, run_app

app = typer.Typer(help="The configuration.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _config() -> None:
    """Keeps `show` a subcommand while it is alone."""


@app.command("show")
def show(
    conf: Conf = None,
    settings: Settings = None,
    pipeline_version: PipelineVersion = None,
    paddlex_config: PaddlexConfig = None,
    backend_config: BackendConfig = None,
) -> None:
    """The configuration as a run would see it, secrets left out."""
    print(configuration(conf, settings, pipeline_version, paddlex_config, backend_config).as_yaml(), end="")


if __name__ == "__main__":
    run_app(app)
