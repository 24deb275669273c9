"""`lablink-client` as tests build it: `python -m tests.support.mortal_client STEP …` is killed with -9 at that step."""

import os
import signal
import sys

from client.cli import main


def die_at(step: str) -> None:
    """Be killed as by an admin or the kernel, if this is the step."""
    if step == MORTAL_STEP:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    MORTAL_STEP = sys.argv[1]
    main(sys.argv[2:], die_at)
