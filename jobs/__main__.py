"""The command `emolib` as a process: it takes paths, signals and streams in hand before it loads anything large."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with the job's code."""
    _leave_out_working_directory()
    try:
        from jobs import process

        process.begin(sys.argv[1:])
        from jobs.environment import set_switches

        set_switches()
        from jobs.command import run

        result = run(sys.argv[1:])
        process.stay()
    except BaseException as error:
        from jobs import process

        if not (process.was_stopped() or isinstance(error, KeyboardInterrupt)):
            raise
        process.end_interrupted()
    from jobs import console

    code = console.EXIT_DONE
    if result is not None:
        result.print()
        code = result.exit_code
    if (failure := process.failure_of_stdout()) is not None:
        what_to_do = console.advice(failure) or "expected a stream that takes the summary"
        console.say(f"emolib: stdout can't be written to: {failure}; {what_to_do}")
        code = code or console.code_of(failure)
    process.end(code)


def _leave_out_working_directory() -> None:
    """Find modules where they are installed: `python -m` puts the working directory first, and workers get its path."""
    if sys.flags.safe_path:
        return
    first, own = sys.path.pop(0), os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120  (pathlib imports types)
    if first == own:  # a checkout that is not installed
        sys.path.append(own)


if __name__ == "__main__":
    main()
