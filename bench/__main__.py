"""python -m bench, and the command `bench`."""

import os
import signal
import sys

# Seconds pass until all of torch is imported; whoever is asked to stop meanwhile has measured nothing, and says: run me again.
for _number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(_number, lambda *_: os._exit(75))

from bench.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
