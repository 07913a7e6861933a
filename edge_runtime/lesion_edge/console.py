"""Terminal of every command: exit codes, one-line errors, messages and progress.

0 all done; 1 finished, but some inputs could not be used; 2 the request or its input is wrong; 3 the images of
late are unlike those of the release (`--monitor`); 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from lesion_edge.errors import DriftAlarm, LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOME_UNUSABLE = 1
WRONG_REQUEST = 2
DRIFT = 3
INTERRUPTED = 130

CANNOT_WRITE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT),
}
"""Error numbers of the system when a file cannot be written."""


def run_command(name: str, function: Callable[..., None], extra: str) -> NoReturn:
    """Run a function as a command with Typer, turning what it raises into a sentence and an exit code.

    Args:
        name: of the command.
        function: its parameters are the options.
        extra: what brings Typer, and the other packages of the command.
    """
    try:
        import typer
    except ImportError:
        _fail(name, f"Typer is not installed: pip install 'lesion-edge[{extra}]'")

    @functools.wraps(function)
    def until_nobody_reads(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except BrokenPipeError:  # Typer would end with 1, as if some images could not be used
            _drop(sys.stdout)
            raise typer.Exit from None

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(until_nobody_reads)
    with exit_codes(name):
        app(prog_name=name, standalone_mode=True)
    raise AssertionError("Typer ends the process")


@contextlib.contextmanager
def exit_codes(name: str) -> Iterator[None]:
    """Turn what a command raises into a sentence and an exit code."""
    _open_closed_streams()
    try:
        yield
    except LesionEdgeError as error:
        _fail(name, str(error))
    except DriftAlarm as alarm:
        say(f"{name}: {alarm}")
        sys.exit(DRIFT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has seen enough
        _drop(sys.stdout)
        sys.exit(0)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        _drop(sys.stdout)
        file = f" {error.filename}" if error.filename else ""
        _fail(name, f"cannot write{file}: {error.strerror}")


def say(text: str) -> None:
    """Print a line on standard error, for the person at the terminal; where nobody reads it, it is lost."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


@contextlib.contextmanager
def native_errors_dropped() -> Iterator[None]:
    """Discard standard error of a library's C++ code while it is imported."""
    saved = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def progress_bar(description: str, total: int | Callable[[], int] | None) -> Iterator[Callable[[int], object]]:
    """Progress bar with rate and time left, on standard error and only where a person is watching.

    Yields:
        A function that takes the number of steps just finished.

    Args:
        description: what is being done.
        total: number of steps, None where nobody knows, or a function that counts them while the bar runs.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda steps: None
        return
    from tqdm import tqdm

    steps = None if callable(total) else total
    columns, rows = (
        shutil.get_terminal_size()
    )  # a serial console has neither by its own word, and tqdm believes it
    with tqdm(desc=description, total=steps, leave=False, file=sys.stderr, ncols=columns, nrows=rows) as bar:
        if callable(total):
            import threading

            def count() -> None:
                bar.total = total()

            threading.Thread(target=count, daemon=True).start()
        yield bar.update


def _open_closed_streams() -> None:
    """Give the numbers of closed standard streams to the null device, lest the next file opened gets one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _drop(stream: TextIO | None) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        # Python would try once more at the end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(name: str, reason: str) -> NoReturn:
    say(f"{name}: {reason}")
    sys.exit(WRONG_REQUEST)
