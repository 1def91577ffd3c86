"""What a short command does about memory that it will not need again: little."""

from __future__ import annotations

import atexit
import gc

# New objects before Python looks through them for cycles. By default 700 (2,000 from 3.13 on), and all the older ones every so often: of a
# command that reads a trace and simulates it a sixth of its time, for what it made lives until it ends.
_NEW_OBJECTS = 200_000


def collect_seldom() -> None:
    """Have Python look for cycles seldom, and not at all when it ends: for commands that measure nothing and end soon."""
    gc.set_threshold(_NEW_OBJECTS, 50, 100)
    atexit.register(gc.freeze)
