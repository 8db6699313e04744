"""The command line: parse, call, print, and set the exit code.

The exit codes are 0 for success, 1 for failure, and 2 for wrong usage or configuration.

Commands import what they need when they run, so that `--help` loads neither aiohttp nor asyncpg.
"""

import sys


def main() -> None:
    """Run the command of the arguments; the process exits with 0, 1 or 2."""
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
    # Map the exit codes of libraries (130 after Ctrl-C) to these three.
    sys.exit(0 if code in {0, None} else 2 if code == 2 else 1)  # noqa: PLR2004 -- usage or configuration
