"""The command line: parse, call, print, and set the exit code.

The exit codes are 0 for success, 1 for failure, and 2 for wrong usage or configuration.

Commands import what they need when they run, so that `--help` loads neither aiohttp nor asyncpg.
"""

import contextlib
import errno
import os
import sys

_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run the command of the arguments; the process exits with 0, 1 or 2."""
    _open_standard_streams()
    from dispatcher.runtime.collector import collect_rarely  # noqa: PLC0415 -- see below

    collect_rarely()
    from dispatcher.cli.output import fail, tolerate_encodings  # noqa: PLC0415 -- see below
    from dispatcher.cli.program import program  # noqa: PLC0415 -- importing this package costs nothing

    tolerate_encodings()
    if any("\ud800" <= one <= "\udfff" for argument in sys.argv for one in argument):
        fail("an argument is not valid in the encoding of this terminal. Use UTF-8.")
        sys.exit(2)

    code: object = 0
    try:
        program(prog_name="dispatcher")
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = 1
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or error.filename is not None:
            raise
        code = _cannot_write(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _cannot_write(error)
    # Map the exit codes of libraries (130 after Ctrl-C) to these three.
    sys.exit(0 if code in {0, None} else 2 if code == 2 else 1)  # noqa: PLR2004 -- usage or configuration


def _cannot_write(error: OSError) -> int:
    """Report that standard output cannot be written, and discard the rest of it; return the exit code.

    A reader that has closed its end, such as `head`, is not reported.
    """
    from dispatcher.cli.output import fail  # noqa: PLC0415 -- importing this package costs nothing

    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            fail(f"cannot write the output: {error.strerror}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python reports the rest once more as it exits
    return 1


def _open_standard_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed.

    Otherwise the first socket or file would get the stream's number, and with it what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", closefd=False, encoding="utf-8")
            setattr(sys, name, stream)
