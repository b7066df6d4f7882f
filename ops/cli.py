"""`sluice`: the command line. Finds the file below ops/commands that its first word names.

Exit codes: 0 done, 1 failed, 2 wrong words (usage, settings, files). Errors are one line on stderr (of usage, a few);
standard output is only what was asked for, and with `--json` only JSON; every error is one JSON object in a line then.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import structlog
import typer

# Typer's own copy of click, whose errors it prints for people only; uv.lock has the version.
from typer._click.exceptions import ClickException

from config.processes import collector
from config.processes.lean_imports import lean_imports
from ops import commands
from protocol.errors import BadInput, SluiceError

#: Exit codes below the help of each command that does not describe its own.
EXIT_CODES = "Exit codes: 0 done; 1 failed, or something needs you; 2 wrong words, settings or files."
#: As shells have it after Ctrl-C.
_INTERRUPTED = 130
#: Below the help of all commands.
_EPILOG = f"""\
To begin: `sluice demo` has a whole pool on this machine, `sluice init` sets up one of your own, `sluice status` says
how it is and what needs you, and `sluice explain ID` why a task, a deal or a machine does not go on. `sluice commands`
lists all commands, `sluice COMMAND --help` has examples.

{EXIT_CODES} Errors are
JSON too with `--json`.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: this process's own) and exit."""
    collector.relax()
    words = list(sys.argv[1:] if argv is None else argv)
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    # Until a command sets up its own logging: standard output is for answers.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    as_json = "--json" in words
    try:
        command = _with_exit_codes(typer.main.get_command(_build_app(words)))
        # Typer prints usage errors itself, for people, and ends with 0, 2, or what typer.Exit says.
        ended = command.main(list(words), prog_name="sluice", standalone_mode=not as_json)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except SluiceError as error:
        return _fail(error, str(error), 2 if isinstance(error, BadInput) else 1, as_json=as_json)
    except ClickException as error:
        return _fail(error, error.format_message(), error.exit_code, as_json=as_json)
    except typer.Abort as error:
        return _fail(error, "It was broken off.", 1, as_json=as_json)
    except KeyboardInterrupt as error:
        # While the command's module is imported; later, Typer ends with the same code.
        return _fail(error, "It was broken off.", _INTERRUPTED, as_json=as_json)
    except OSError as error:
        # A file that is named is one that somebody chose; without a name, a disk or a connection has failed.
        named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        says = f"{named}{error.strerror or str(error) or type(error).__name__}."
        return _fail(error, says, 2 if named else 1, as_json=as_json)
    # Without Typer's way of ending: what typer.Exit says, or what the command returns, which is nothing.
    return ended if isinstance(ended, int) else 0


def _fail(error: BaseException, says: str, code: int, *, as_json: bool) -> int:
    """Print an error as one line, and return the exit code."""
    # Names of files may hold bytes that no encoding has.
    says = " ".join(says.split()).encode(errors="backslashreplace").decode()
    told = {"error": says, "kind": type(error).__name__, "exit_code": code}
    print(json.dumps(told, ensure_ascii=False) if as_json else f"sluice: {says}", file=sys.stderr)
    return code


def every_command() -> Any:
    """click's group of all commands."""
    return _with_exit_codes(typer.main.get_command(_build_app(())))


def _with_exit_codes(command: Any) -> Any:
    """The command, with the exit codes below the help of each command below it that says none itself."""
    for each in getattr(command, "commands", {}).values():
        _with_exit_codes(each)
        if "Exit codes:" not in (each.epilog or ""):
            each.epilog = f"{each.epilog or ''}\n\n{EXIT_CODES}".strip()
    return command


def _build_app(words: Sequence[str]) -> typer.Typer:
    """The Typer app with the commands that this command line may need: the one it names, or all of them for help."""
    app = typer.Typer(
        name="sluice",
        help="An iExec worker pool: scheduler, workers, and a local stack to run them on.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # Without this, a single command would not need its name.
    app.callback()(_sluice)
    files = _command_files()
    words = [*words, *_words_to_complete()]
    first = next((word.replace("-", "_") for word in words if not word.startswith("-")), None)
    for name in [first] if first in files else sorted(files):
        with lean_imports():
            module = importlib.import_module(files[name])
        module.register(app)
    return app


def _command_files() -> dict[str, str]:
    """The module of each first word; nothing is imported to find them."""
    return {
        module.name: f"{commands.__name__}.{folder.name}.{module.name}"
        for folder in pkgutil.iter_modules(commands.__path__)
        for path in commands.__path__
        for module in pkgutil.iter_modules([f"{path}/{folder.name}"])
    }


def _words_to_complete() -> list[str]:
    """The words that a shell asks to complete, from the variables it sets; none if it asks nothing."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    return line.split()[1:] if "_SLUICE_COMPLETE" in os.environ else []


def _print_version(wanted: bool) -> None:
    """Print the version and exit, if the option `--version` is given."""
    if wanted:
        print(f"sluice {version('sluice')}")
        raise typer.Exit


def _sluice(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An iExec worker pool: scheduler, workers, and a local stack to run them on."""


if __name__ == "__main__":
    main()
