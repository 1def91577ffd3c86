"""Where tests find what is not theirs: the measurements beside the repository, which may be absent."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
MEASURED = SHARED / "measured"
TRACES = SHARED / "traces"
