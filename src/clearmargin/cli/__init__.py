"""The command line: the only place that prints or exits.

COMMANDS is the list of what it can do. Each command imports what it needs when it runs, so that
`clearmargin --help` stays fast. An error is one line on standard error; `--debug`, anywhere on the line,
shows the traceback. Exit codes are those of `errors.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from clearmargin.cli.audit import audit
from clearmargin.cli.calibrate import calibrate
from clearmargin.cli.compare import compare
from clearmargin.cli.completion import VARIABLE, whole_words, with_completers
from clearmargin.cli.demo import demo
from clearmargin.cli.doctor import doctor
from clearmargin.cli.download import download
from clearmargin.cli.evaluate import evaluate
from clearmargin.cli.explain import explain
from clearmargin.cli.export import export
from clearmargin.cli.import_keras import import_keras
from clearmargin.cli.model import model
from clearmargin.cli.optimism import optimism
from clearmargin.cli.predict import predict
from clearmargin.cli.report import report
from clearmargin.cli.serve import serve
from clearmargin.cli.split import split
from clearmargin.cli.sweep import sweep
from clearmargin.cli.train import train
from clearmargin.errors import ClearmarginError
from clearmargin.files import disk_errors

# pydantic would look for plugins in every package that is installed, which takes longer than to decide on an image.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "audit": audit,
    "split": split,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "report": report,
    "compare": compare,
    "optimism": optimism,
    "sweep": sweep,
    "calibrate": calibrate,
    "export": export,
    "import-keras": import_keras,
    "download": download,
    "model": model,
    "serve": serve,
    "doctor": doctor,
}

_SUMMARY = (
    "Train, check and run classifiers of breast images, with numbers that hold on the next patient. "
    "For research and education; not a medical device."
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from clearmargin import __version__

        typer.echo(f"clearmargin {__version__}")
        raise typer.Exit


def build_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with these entries of COMMANDS."""
    app = typer.Typer(
        help=_SUMMARY, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=True
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Show the version.", callback=_show_version, is_eager=True
        ),
        debug: bool = typer.Option(
            False, "--debug", help="Show the traceback of an error; works anywhere on the line."
        ),
    ) -> None:
        pass

    is_completing = VARIABLE in os.environ
    for name in names:
        app.command(name)(with_completers(name, COMMANDS[name]) if is_completing else COMMANDS[name])
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    # A command that is named needs no other: to describe them all takes longer than some of them run.
    named = next((argument for argument in given if not argument.startswith("-")), None)
    wanted = [named] if named in COMMANDS else list(COMMANDS)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        with _TerminationAsInterrupt(), disk_errors(Path("output")), whole_words():
            command = typer.main.get_command(build_app(wanted))
            result = command.main(given, prog_name="clearmargin", standalone_mode=False)
    except ClearmarginError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except typer.TyperException as error:  # the parser's own: unknown option, missing argument
        return _fail(_usage_words(error), error.exit_code, debug=debug)
    except Exception as error:
        if debug:
            raise
        return _fail(
            f"a bug in clearmargin ({type(error).__name__}: {error}). Run again with --debug and report what it shows.",
            1,
            debug=False,
        )
    if result == 130:
        return _fail(
            "interrupted. What trains goes on with the same command and --resume; the rest starts again.",
            130,
            debug=False,
        )
    return result if isinstance(result, int) else 0


_WRONG_VALUES = {
    "less_than_equal": "{value} is above {le:g}",
    "greater_than_equal": "{value} is below {ge:g}",
    "int_parsing": "{value} is no whole number",
    "float_parsing": "{value} is no number",
}
"""What the parser's library calls a wrong value, and what we say of it."""


def _usage_words(error: typer.TyperException) -> str:
    """What the parser found wrong, in our words, and whose help to read."""
    from pydantic import ValidationError

    message = error.format_message().replace("Value error, ", "")
    cause, context = error.__cause__, getattr(error, "ctx", None)
    if isinstance(cause, ValidationError) and (detail := cause.errors()[0])["type"] in _WRONG_VALUES:
        reason = _WRONG_VALUES[detail["type"]].format(value=detail["input"], **detail.get("ctx", {}))
        message = f"{message.partition(': ')[0]}: {reason}"
    command = "clearmargin" if context is None else context.command_path
    ended = message if message.endswith("?") else f"{message.rstrip('.')}."
    return f"{ended} See '{command} --help'."


def run() -> None:
    """Entry of the installed command."""
    sys.exit(main())


class _TerminationAsInterrupt:
    """SIGTERM ends a command as Ctrl-C does, outside training too (which catches both itself)."""

    def __enter__(self) -> None:
        try:
            self._previous = signal.signal(signal.SIGTERM, self._interrupt)
        except ValueError:  # not the main thread, as in tests and servers
            self._previous = None

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    @staticmethod
    def _interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    return code
