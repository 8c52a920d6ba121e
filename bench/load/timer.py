"""A timer that an epoll can wait for, in nanoseconds: the timeout of epoll itself counts whole milliseconds.

Linux's timerfd, by way of the C library, as Python has it from 3.13 on only.
"""

from __future__ import annotations

import ctypes
import os

MONOTONIC, NONBLOCK, ABSOLUTE = 1, 0o4000, 1
BILLION = 1_000_000_000


class _Spec(ctypes.Structure):
    """struct itimerspec: an interval, then the time of the first ring."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Timer:
    """Rings once at a time of `time.perf_counter_ns`, which is the monotonic clock on Linux."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(MONOTONIC, NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Spec()

    def ring_at(self, nanoseconds: int) -> None:
        """Make `fd` readable then, and not before; what it was set to is forgotten."""
        self._spec.at_s, self._spec.at_ns = divmod(max(nanoseconds, 1), BILLION)
        if self._libc.timerfd_settime(self.fd, ABSOLUTE, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
