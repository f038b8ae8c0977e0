"""Being asked to stop: a signal is a flag that all ranks agree on at the next edge of a window."""

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from accelerate.utils import gather_object

from bench.errors import ExitCode, Preempted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
GRACE_S = 20.0  # to reach an edge in; the shortest notice of a cloud is 30 s, Slurm's default before it kills is 30 s
PR_SET_PDEATHSIG = 1
LAUNCHER_PID = "BENCH_LAUNCHER_PID"  # variable that names the process which starts ranks and waits for them


class Guard:
    """What this rank knows of being asked to stop.

    Python's handlers do not run while the main thread is inside a collective or a kernel, so a thread watches as well: where
    nothing is to be kept yet (set-up, compilation, warm-up) it ends the process at once, and otherwise when no edge of a window
    has been reached within the grace. What was measured until the last snapshot is then on disk already.
    """

    def __init__(self, before_leaving: Callable[[str], None], grace_s: float = GRACE_S) -> None:
        self.asked = 0  # the number of the signal, or 0
        self.has_measured = False  # a window is complete: the next edge is worth waiting for
        self.grace_s = grace_s
        self._leaves_at: float | None = None  # once asked: when the watching thread ends this process
        self._before_leaving = before_leaving

    def install(self) -> None:
        """Nothing; signals to stop are looked at from now on, and the death of the parent is one. Main thread only."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._ask)
        threading.Thread(target=self._watch, args=(reader, writer), name="preemption", daemon=True).start()
        _die_with_parent()

    def left_s(self) -> float:
        """Seconds until this process ends whatever it is at; the whole grace where it was not asked to."""
        return self.grace_s if self._leaves_at is None else self._leaves_at - time.monotonic()

    def stop_together(self) -> None:
        """Nothing where no rank was asked to stop; raises Preempted on all ranks where any was. Collective."""
        asked: list[int] = [number for number in gather_object([self.asked]) if number]
        if asked:
            raise Preempted(f"asked to stop by {signal.Signals(asked[0]).name}")

    def _ask(self, number: int, _: object) -> None:
        self.asked = self.asked or number

    def _watch(self, reader: socket.socket, _: socket.socket) -> None:
        while True:
            number = reader.recv(1)[0]
            if number in STOP_SIGNALS:
                break
        self.asked = self.asked or number
        self._leaves_at = time.monotonic() + self.grace_s
        while self.has_measured and self.left_s() > 0:
            time.sleep(0.05)
        self._leave(number)

    def _leave(self, number: int) -> NoReturn:
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        where = f"no edge of a window within {self.grace_s:g} s" if self.has_measured else "nothing was measured yet"
        self._before_leaving(f"asked to stop by {signal.Signals(number).name}; {where}")
        os._exit(ExitCode.PREEMPTED)


def ignore_stop_signals() -> None:
    """Nothing; a rank that has said why it ends is not killed while Python takes itself down. Main thread only."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _die_with_parent() -> None:
    """Nothing; on Linux the kernel sends SIGTERM when the process that started this one is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    launcher = os.environ.get(LAUNCHER_PID, "")
    if launcher.isdigit() and int(launcher) != os.getppid():  # gone before this line
        os.kill(os.getpid(), signal.SIGTERM)
