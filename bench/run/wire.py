"""Wires with a delay: what goes in at one end comes out at the other so much later, in order.

The kernel's own netem does this better where it is built in; here a process of ours holds the frames. It runs before everything
else on the machine, since what it is late itself is added to the delay.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NAMESPACES = Path("/run/netns")
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
CLONE_NEWNET = 0x40000000
FRAMES_AT_ONCE = 64
MOST_FRAME_BYTES = 65536
READY = "ready"


@dataclass
class _End:
    """One end of a wire, and the frames that are on their way to it with the time when each is due."""

    tap: int
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)


def carry(wires: Sequence[tuple[tuple[str, str], tuple[str, str]]], delay_s: float, jitter_s: float) -> None:
    """Nothing, and never returns: frames go through the wires, each given by (namespace, interface) of both ends."""
    pairs = [(_End(_open_tap(*one)), _End(_open_tap(*other))) for one, other in wires]
    there = {one.tap: other for pair in pairs for one, other in (pair, pair[::-1])}
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    poll = select.epoll()
    for tap in there:
        poll.register(tap, select.EPOLLIN)
    random_number = np.random.default_rng(0).random
    while True:
        for tap, _ in poll.poll(_wait_s(there.values())):
            due = time.monotonic() + delay_s + jitter_s * random_number()
            _take_in(tap, there[tap], due)
        for end in there.values():
            _give_out(end)


def _wait_s(ends: Iterable[_End]) -> float:
    firsts = [end.waiting[0][0] for end in ends if end.waiting]
    return max(0.0, min(firsts) - time.monotonic()) if firsts else -1


def _take_in(tap: int, to: _End, due: float) -> None:
    due = max(due, to.waiting[-1][0]) if to.waiting else due
    for _ in range(FRAMES_AT_ONCE):
        try:
            to.waiting.append((due, os.read(tap, MOST_FRAME_BYTES)))
        except BlockingIOError:
            return


def _give_out(end: _End) -> None:
    now = time.monotonic()
    while end.waiting and end.waiting[0][0] <= now:
        with contextlib.suppress(OSError):  # a full or closed end loses the frame, as a wire would
            os.write(end.tap, end.waiting[0][1])
        end.waiting.popleft()


def _open_tap(namespace: str, interface: str) -> int:
    """A descriptor of a new interface in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    inside = os.open(NAMESPACES / namespace, os.O_RDONLY)
    try:
        if libc.setns(inside, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"namespace {namespace} cannot be entered")
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", interface.encode(), IFF_TAP | IFF_NO_PI))
        return tap
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(inside)
        os.close(home)


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    carry(*json.loads(sys.argv[1]))
