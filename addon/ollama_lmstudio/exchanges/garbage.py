"""When the garbage collector runs, so that the bodies of flows that have ended do not pile up."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from ..internals import interface

# A chat of a thousand tokens has half a megabyte on both sides.
COLLECTED_BYTES = 8 << 20
# Where other objects are so many that a collection takes long, this many times as long passes to the next.
PAUSE_FACTOR = 50
# Python 3.12 begins with some hundred objects that are left out; mitmproxy has a hundred thousand.
PYTHONS_OWN = 10_000


class Garbage:
    """Collect what has ended by the size of its bodies.

    mitmproxy's objects for an exchange refer to each other in circles, which only the collector frees. It goes by the
    number of objects, and would let the bodies of a hundred flows pile up. What was there when mitmproxy began to serve
    is left out: to look through it takes fifty times as long as all else.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bytes = 0
        self._not_before = 0.0

    def start(self) -> None:
        """Leave out what is there now, which stays; when code is loaded anew, the old code goes."""
        if gc.get_freeze_count() > PYTHONS_OWN:
            gc.unfreeze()
            gc.collect()
        gc.freeze()

    def ended(self, size: int) -> None:
        """Note that a flow with bodies of `size` bytes has ended, and collect when that is due."""
        self._bytes += size
        if self._bytes < COLLECTED_BYTES or interface.is_shown():
            return  # a flow that is shown stays
        began = self._clock()
        if began >= self._not_before:
            self._bytes = 0
            gc.collect()
            ended = self._clock()
            self._not_before = ended + PAUSE_FACTOR * (ended - began)
