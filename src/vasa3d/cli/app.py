"""The program: its commands, and how errors reach the user.

Exit codes: 0 success; 2 input or output that the user can mend, told in one line
``error: ... hint: ...``; 1 an unexpected error; 130 interrupted with Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

import typer

from vasa3d import __version__
from vasa3d.cli import bench, evaluate, make, train
from vasa3d.cli.doctor import doctor
from vasa3d.cli.export import export
from vasa3d.cli.serve import serve
from vasa3d.errors import VasaError

INTERRUPTED = 130
TERMINATED = 143

# Typer does not export the base class of its usage errors, and has moved it between releases.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="vasa3d",
    help="One portrait photo in, a talking 3D head out.",
    epilog="Every command explains itself: vasa3d talk --help. "
    "Add --debug to any command to see the whole traceback of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"vasa3d {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _command in (
    make.talk,
    make.create,
    make.animate,
    make.motion,
    make.render,
    export,
    serve,
    doctor,
):
    app.command()(_command)
app.add_typer(bench.app, name="bench")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Words after the program's name; default: the process's own.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # A name that the terminal's encoding lacks is no reason to fail at the very end.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings(), _signals(), _quiet_libraries(debug):
        try:
            program = typer.main.get_command(app)
            code = program.main(args=words, prog_name="vasa3d", standalone_mode=False)
            sys.stdout.flush()
            if code == INTERRUPTED:  # Typer's own way to say what is raised below
                raise KeyboardInterrupt
            return code if isinstance(code, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            if debug:
                raise
            _tell("interrupted; nothing was left half-written.")
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                raise
            return _report(error)


def _report(error: Exception) -> int:
    if isinstance(error, VasaError):
        _tell(f"error: {error}")
        return 2
    if isinstance(error, _USAGE_ERROR):
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "vasa3d"
        _tell(f"error: {message}. hint: run {command} --help")
        return 2
    if isinstance(error, ImportError) and not (error.name or "").startswith("vasa3d"):
        _tell(f"error: {str(error).rstrip('.')}. hint: vasa3d doctor tells what is missing")
        return 2
    if isinstance(error, MemoryError):
        _tell("error: there is not enough memory. hint: close other programs, or use smaller files")
        return 2
    text = " ".join(str(error).split())[:200].rstrip(".")
    _tell(
        f"error: unexpected {type(error).__name__}: {text}. "
        "hint: run again with --debug and report what it prints"
    )
    return 1


def _tell(line: str) -> None:
    sys.stderr.write(" ".join(line.split()) + "\n")
    sys.stderr.flush()


@contextmanager
def _signals() -> Iterator[None]:
    """Let termination unwind the program as Ctrl-C does, so that temporary files go."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    old = {}
    for name in names:
        # Only the main thread of a program may do this; elsewhere things stay as they are.
        try:
            if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
                old[name] = signal.signal(getattr(signal, name), stop)
        except ValueError:
            break
    try:
        yield
    finally:
        for name, handler in old.items():
            signal.signal(getattr(signal, name), handler)


@contextmanager
def _quiet_libraries(debug: bool) -> Iterator[None]:
    """Keep the chatter of libraries off the screen; what we write to Python's stderr stays."""
    if not debug:
        warnings.simplefilter("ignore")
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # replaced by something that is no file
        yield
        return
    if debug or descriptor != 2:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    ours = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
    before = sys.stderr
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = ours
    try:
        yield
    finally:
        ours.flush()
        sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
