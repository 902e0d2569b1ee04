"""The command line: parses, runs one job, and turns what became of it into an exit code."""

from __future__ import annotations

import math
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from cyclopts import UNSET, App, Argument, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict

from emolib import __version__
from emolib.errors import SettingsError
from jobs import console, process

_HELP = """\
Label emotions in speech, in bulk: MFCCs with Dask, a CNN, labels in Parquet.

See it work first:

    emolib demo

The way from labelled corpora to a labelled archive of calls:

    emolib extract ravdess/ savee/ --store S.zarr         sound to features
    emolib evaluate S.zarr --task emotion3 --protocol speaker6 --out judged
    emolib train S.zarr --task emotion3 --model model     features to a model
    emolib known-audio /archive --out known.npz           hold music, to leave out
    emolib score /archive --model model --out labels      calls to Parquet
    emolib verify labels                                  nothing is lost
    emolib report labels --out page                       a page for people
    emolib benchmark savee/ --out known                   calls to judge it by
    emolib erase labels --call-id ID                      a call is forgotten
    emolib promote labels --model other                   another model takes over
    emolib nightly /archive --model model --out labels --report pages
                                                          all three, every night

A killed job goes on where it was when the same command is run again (extract
wants --resume). Every command takes --config FILE.toml: a table per command
([score], [train], ...) whose keys are its options; flags win over it.

Exit codes: 0 done; 1 done, but too many failures, or folders that could not
be read; 2 wrong usage or settings; 3 another run holds the lock; 4 the model
gives other numbers on this machine; 5 interrupted, run it again; 6 verify
found damage; 70 unexpected.
"""

# Loaded only when called for: `emolib --help` starts no scheduler and TensorFlow is imported by what trains.
_COMMANDS = {
    "demo": "See the whole way on synthetic voices: corpus, calls, training, labels, a page to look at.",
    "extract": "Fill a feature store from corpora of labelled clips.",
    "train": "Train a model on a feature store and write its bundle.",
    "evaluate": "Judge an architecture, fold by fold, or predictions of calls of which everything is known.",
    "benchmark": "Make calls with known emotions from clips of speakers that a model never heard, to judge it by.",
    "explore": "Draw a recording, or a feature store: spectra, formants, MFCCs; classes, durations, clusters.",
    "known-audio": "Find hold music and announcements in an archive, for score to leave out.",
    "score": "Label an archive of calls; run it again and it continues.",
    "nightly": "Do a night's work: finish what was interrupted, score what is new, verify, write a page.",
    "erase": "Remove all that predictions hold of a call, and never score it again.",
    "promote": "Compare a model with the one that scores an archive, and let it take over.",
    "doctor": "Look whether a job could run here, and on a cluster.",
    "certs": "Make certificates for a cluster whose traffic leaves this machine.",
    "verify": "Prove that predictions, or a feature store, are whole.",
    "report": "Make a page from predictions.",
    "export": "Write segments, runs of one emotion, for other tools: RTTM, audformat, CSV.",
}

_SHOWS = {"--help", "-h", "--version"}

# They want a new folder, and do not go on with what they left in one.
_ANEW = ("demo", "benchmark", "explore", "report", "export")

app = App(name="emolib", help=_HELP, help_format="plaintext", version=__version__, suppress_keyboard_interrupt=False)
for _name, _line in _COMMANDS.items():
    app.command("jobs.{0}:{0}".format(_name.replace("-", "_")), name=_name, help=_line, help_format="markdown")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[str | None, Parameter(help="A TOML file with a table per command.", negative=())] = None,
    debug: Annotated[
        bool, Parameter(help="Show the traceback of an error, and what libraries and workers say.", negative=())
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], Parameter(help="What goes to stderr: words, or JSON lines.")
    ] = "text",
) -> Any:
    process.log_json, process.debug = log_format == "json", debug
    try:
        if tokens and not _SHOWS.intersection(tokens):
            process.check_surroundings()
        app.config = (_checked,) if config is None else (*_settings(config), _checked)
        return app(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except (
        Exception,
        KeyboardInterrupt,
        CancelledError,
    ) as error:  # the outermost door
        if debug:
            console.say(traceback.format_exc().rstrip())
        return ended_by(error, next(iter(tokens), None))
    finally:
        app.config = ()


def _settings(path: str) -> tuple[Callable[..., None], ...]:
    """Return how a file of options is looked at, and how it gives them: what is wrong with it is wrong usage.

    Raises
    ------
    SettingsError
        If it is missing or no TOML, or names what no command has.
    """
    if not path:
        raise SettingsError("nothing found for --config, expected a TOML file of options")
    from jobs.toml import read_toml  # the file systems take their time, and --help needs none

    document = read_toml(path, of="options")
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    for name, table in tables.items():
        if elsewhere := sorted({"config", "debug", "log_format", "log-format"} & set(table)):
            flag = elsewhere[0].replace("_", "-")
            raise SettingsError(f"{path} has {elsewhere[0]!r} in [{name}], expected --{flag} on the command line")
    if unknown := sorted(set(document) - set(_COMMANDS)):
        raise SettingsError(f"{path} has {unknown[0]!r}, expected a table for a command: {', '.join(_COMMANDS)}")

    def typed(_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        for name, value in tables.get(commands[-1], {}).items():
            values = value if isinstance(value, list) else [value]
            with suppress(ValueError):  # no such option: cyclopts will say it
                found = arguments.match(f"--{name.replace('_', '-')}")[0]
                if any(isinstance(each, bool) for each in values) and bool not in _kinds(found):
                    said = str(value).lower()  # cyclopts would make a text of it
                    raise SettingsError(f"{path} has {name} = {said} in [{commands[-1]}], expected a text or a number")

    return typed, Dict(document, source=path)


def _checked(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Look at the values of all options, before what each of them may be is looked at.

    Raises
    ------
    SettingsError
        If one is empty, as by a variable of the shell that is not set, no number, or not whole where it should be.
    """
    for argument in arguments:
        kinds = _kinds(argument)
        for value in (token.value for token in argument.tokens if token.implicit_value is UNSET):
            if not value:
                raise SettingsError(f"nothing found for {argument.name}, expected a value; leave it out if it has none")
            if int in kinds and "." in value:  # cyclopts would round it
                raise SettingsError(f"{value} found for {argument.name}, expected a whole number")
            with suppress(ValueError):  # no number: cyclopts will say it
                if float in kinds and not math.isfinite(float(value)):  # 1e999, too
                    raise SettingsError(f"{value} found for {argument.name}, expected a number")


def _kinds(argument: Argument) -> tuple[Any, ...]:
    """Return the type of an option, and what that consists of: ``int | None``, ``tuple[str, ...]``."""
    return argument.hint, *get_args(argument.hint)


def run(tokens: Sequence[str]) -> console.Result | None:
    """Run one command and return how it ended, or None where it only printed help or the version."""
    try:
        result = app.meta(list(tokens), result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return ended_by(error)
    except Exception as error:  # commands are imported before `_launch` is called, and Dask reads the user's files then
        if process.debug:
            console.say(traceback.format_exc().rstrip())
        return ended_by(error)
    return result if isinstance(result, console.Result) else None


def ended_by(error: BaseException, command: str | None = None) -> console.Result:
    """Say in one line what stopped a job, and with which code.

    Parameters
    ----------
    command
        Its name, where that is known.
    """
    if process.log is not None:  # the process is the command's own
        process.stay()
    if process.was_stopped():  # whatever came of that
        error = KeyboardInterrupt()
    code, text = console.code_of(error), " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        anew = "interrupted: run it again, with a new --out or without what it left in this one"
        text = anew if command in _ANEW else process.INTERRUPTED
    elif code == console.EXIT_UNEXPECTED:
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    elif what_to_do := console.advice(error):
        text = f"{text}; {what_to_do}"
    console.say(f"emolib: {text}")
    return console.Result({"error": text}, code)
