"""The command `lablink`. All that takes time to import is imported where Ctrl-C and failures are met quietly."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error and an exit code."""
    try:
        import gc

        gc.set_threshold(150_000)  # new objects before garbage is looked for: the usual 700 cost a sixth of a start
        from allocator.cli.commands import app

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from allocator.cli.failures import exit_code_of
        from allocator.cli.output import complain

        code = exit_code_of(error)
        if code is None:
            raise
        complain(str(error))
        sys.exit(code)
