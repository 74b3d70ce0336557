"""The process around the app: arguments, signals, stdout, and every failure as one line and an exit code."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from pdr_cli.errors import ConfigError, MemoryShortageError, PdrError

# Options that take several values after one name, as when a shell expands --data clips/*.mp4.
SEVERAL = {
    "train": ("--data", "--var", "--set"),
    "bench-render": ("--res", "--channels", "--batch"),
    "bench-train": ("--size", "--set"),
    "export": ("--input",),
}


def spread(arguments: list[str]) -> list[str]:
    """Repeat an option's name before each of its values: `--data a b` becomes `--data a --data b`."""
    options = SEVERAL.get(arguments[0], ()) if arguments else ()
    out: list[str] = []
    current = ""
    for argument in arguments:
        if argument.startswith("-"):
            current = argument if argument in options else ""
        elif current and out[-1] != current:
            out.append(current)
        out.append(argument)
    return out


def main() -> NoReturn:
    """Run the app; every failure becomes one line on stderr, its stable name and its exit code."""
    # OpenMP threads that spin while they wait take the cores from other jobs. Two trainings at once on two cores: 0.6 s
    # a step with libgomp's default, 0.5 s with this; a training alone takes the same 0.14 s with either.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from typer import Abort

    from pdr_cli.app import app
    from pdr_cli.system import logs

    _prepare_output()
    logs.setup(quiet=False, verbose=False, as_json="--log-json" in sys.argv)
    try:
        with _signals():
            code = app(spread(sys.argv[1:]), standalone_mode=False)
            _flush()
    except PdrError as error:
        _exit(error.code, error.name, str(error))
    except _Stopped as stopped:
        _exit(128 + stopped.number, "E_INTERRUPTED", f"{signal.Signals(stopped.number).name}: stopped")
    except (KeyboardInterrupt, Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # of a file; typer takes it for the end of what a user types
            _exit_of_error(stop.__cause__)
        _exit(130, "E_INTERRUPTED", "interrupted")
    except BrokenPipeError:
        _discard_stdout()
        code = 0
    except OSError as error:
        _discard_stdout()
        _exit_of_others(error)
        _exit(74, "E_IO", str(error))
    except Exception as error:
        _exit_of_error(error)
    if code == 130:
        _exit(130, "E_INTERRUPTED", "interrupted")
    gc.freeze()  # so that the end does not search a million objects of torch for garbage: 0.4 s
    sys.exit(code if isinstance(code, int) else 0)


def _prepare_output() -> None:
    """Write UTF-8 to files and pipes whatever the locale is, and to terminals what they can show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


class _Stopped(BaseException):
    """A signal asked the process to stop. A BaseException, so that no `except Exception` on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 unwind the command, which removes its temporary files; a second signal acts at once."""

    def stop(number: int, _: object) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        raise _Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _flush() -> None:
    """Flush stdout while a failure can still be reported. A closed stdout is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_stdout() -> None:
    """Redirect stdout to nowhere after its reader closed it (`| head`), so that the flush at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_of_error(error: Exception) -> NoReturn:
    """Leave with the code of what has failed."""
    _exit_of_usage(error)
    _exit_of_cut_module(error)
    _exit_of_shortage(error)
    _exit_of_others(error)
    _exit_of_bug(error)


def _exit_of_cut_module(error: Exception) -> None:
    """Leave with `E_IO` if a module that Python has compiled is cut off; Python writes them so where a disk is full."""
    if not isinstance(error, EOFError):
        return
    import traceback

    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    path = next((f.f_locals.get("bytecode_path") for f in frames if f.f_code.co_name == "get_code"), None)
    if path:
        _exit(
            74,
            "E_IO",
            f"{path} is cut off, as a full disk leaves it; delete it and those beside it, which Python makes again",
        )


def _exit_of_usage(error: Exception) -> None:
    """Leave with 2 if the error is one of click's usage errors, which typer vendors under its own module names."""
    if not hasattr(error, "format_message") or not hasattr(error, "show"):
        return
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if not message:  # `pdr` alone
        error.show()
    elif context is not None and "--log-json" not in sys.argv:
        print(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.", file=sys.stderr)
    _exit(2, "E_USAGE", message or "name a command")


def _exit_of_shortage(error: Exception) -> None:
    """Leave with `E_MEMORY` if memory ran short where no batch can be halved."""
    from pdr_cli.system import damage, memory

    if memory.is_shortage(error):
        way_out = "close other programs that use memory, or take a machine with more of it"
        short = MemoryShortageError(damage.first_line(error), way_out=way_out)
        _exit(short.code, short.name, str(short))


def _exit_of_others(error: Exception) -> None:
    """Leave with `E_CONFIG` and the traceback if the code of others failed, such as a predictor of the user."""
    from pdr_cli import families, trust

    where = trust.culprit(error.__traceback__, families.FOREIGN)
    if where is None:
        return
    import traceback

    found = f"the code of {where} failed: {type(error).__name__}: {error}"
    failed = ConfigError(found, way_out="this code is not of pdr; mend it, or choose another")
    _exit(failed.code, failed.name, str(failed), traceback.format_exc())


def _exit_of_bug(error: Exception) -> NoReturn:
    """Leave with 1 and the traceback."""
    import traceback

    message = f"this is a bug, please report it: {type(error).__name__}: {error}"
    _exit(1, "E_BUG", message, traceback.format_exc())


def _exit(code: int, name: str, message: str, trace: str = "") -> NoReturn:
    from pdr_cli.system.logs import log

    if trace:
        log.error("%s", trace.rstrip(), extra={"fields": {"traceback": True}})
    log.error("%s [%s, exit %d]", " ".join(message.split()), name, code, extra={"fields": {"code": code, "name": name}})
    sys.exit(code)
