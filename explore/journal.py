"""A study: designs evaluated one batch after another, each kept on disk as soon as it is done.

DIR/study.jsonl is a journal of one JSON line a design. A search is deterministic: started again, it proposes the same
designs, and those in the journal are not evaluated again. So an interrupted study, by Ctrl-C or kill -9, loses the designs
in flight and nothing else, and its results are the same bytes. Several processes may work on one DIR: a design is claimed
in the journal before it is evaluated, and the claims of a process that is no more do not hold.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simtti.explore.engines import Engine
from simtti.explore.spec import Spec
from simtti.journal import Journal, code_hash

_POLL_S = 0.3  # between looks at what other processes have done
_CLAIM = 64  # designs claimed at once, or an eighth of those left if that is more

Progress = Callable[[int, int], None]


class Study:
    """Evaluates designs of a spec, each once; `evaluated` counts those of this process."""

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        engine: Engine,
        progress: Progress,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.spec_json = spec.model_dump_json(exclude_defaults=True)
        self.engine, self.progress = engine, progress
        question = hashlib.sha256(f"{spec.identity()} {code_hash('explore')}".encode()).hexdigest()[:16]
        self.journal = Journal(folder / "study.jsonl", question)
        self.evaluated = 0
        self._say, self._said = say, set[str]()

    def evaluate(
        self, designs: Sequence[dict[str, float]], total: int, limits: bool = False
    ) -> list[dict[str, Any]]:
        """The figures of `designs`, in order. total: of designs the whole search will have, for the progress."""
        keys = [design_key(values) + ("+limits" if limits else "") for values in designs]
        values_of = dict(zip(keys, designs, strict=True))
        while True:
            done = self.journal.read()
            if self.journal.foreign:
                self._once(
                    f"{self.journal.path}: {self.journal.foreign} results of other code or another device do not count"
                )
            self.progress(sum("+" not in key for key in done), total)
            left = [key for key in values_of if key not in done]
            if not left:
                return [done[key] for key in keys]
            mine = self.journal.claim(left, max(_CLAIM, len(left) // 8))
            if not mine:
                self._once(
                    f"waiting for {', '.join(self.journal.holders()) or 'another process'}, at work on the rest"
                )
                time.sleep(_POLL_S)
                continue
            tasks = [(self.spec_json, values_of[key], limits) for key in mine]
            count = len(done)
            for index, figures in self.engine(tasks):
                self.journal.append(mine[index], figures)
                self.evaluated += 1
                count += 1
                self.progress(min(count, total), total)

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def design_key(values: dict[str, float]) -> str:
    """A design's name in the journal: its parameters."""
    return json.dumps(values, sort_keys=True)
