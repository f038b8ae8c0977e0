"""python -m bench, and the command `bench`."""

import atexit
import os
import signal
import sys
from contextlib import suppress

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# Seconds pass until all of torch is imported; whoever is asked to stop meanwhile has measured nothing, and says: run me again.
for _number in STOP_SIGNALS:
    signal.signal(_number, lambda *_: os._exit(75))

from bench.masking import MaskingStream  # noqa: E402

# Before libraries take hold of the streams: whatever is printed, a traceback too, goes without the secrets of the environment.
sys.stdout, sys.stderr = MaskingStream(sys.stdout), MaskingStream(sys.stderr)

from bench.cli import main  # noqa: E402


def run() -> None:
    """Does not return; the process ends with the exit code, which a late signal no longer changes."""
    code = main()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if "torch" in sys.modules:  # ranks that were done have died of threads that C++ found still running when it took itself down
        atexit._run_exitfuncs()
        with suppress(OSError):  # nobody reads on
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
