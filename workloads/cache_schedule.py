"""Which steps a cache of transformer blocks lets hit, and what runs in each: what is given to `--cache`, read and spread over the steps.

    fbcache:0.6                     a method and the share of the steps that hit
    dbcache:0.5:fn=4:bn=4:warmup=6  with its settings
    schedule.yaml                   the same as fields, or every step listed

How often a cache hits depends on what is painted: a threshold says nothing without weights, a share can be measured (every library
prints it). Hits are spread evenly over the steps after the warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from simtti.errors import InputError, Problems, unknown
from simtti.files import read_yaml


@dataclass(frozen=True, slots=True)
class Method:
    """A cache as its library implements it.

    tests: what it compares with the step before to see whether it may skip: 'residual', what the first blocks add; 'input',
    what the first block's norm makes of its input; '', nothing. fn, bn: blocks at the front and at the back that always run.
    each_list: of each list of blocks, which are cached on their own. text: the text's stream is cached too, not the hidden
    states alone. warmup: steps at first that run whole and compare nothing, or their share of all steps. last: the same at the
    end.
    """

    name: str
    tests: str
    fn: int
    bn: int
    each_list: bool
    text: bool
    warmup: int | float
    last: int = 0


METHODS = {
    method.name: method
    for method in (
        # diffusers, hooks/first_block_cache.py, after ParaAttention.
        Method("fbcache", "residual", 1, 0, False, True, 1),
        # cache-dit: DBCacheConfig's defaults are F8B0 and 8 steps of warm-up; each list of blocks has a context of its own, where
        # releases before 0.3 took all lists as one row (joined=1).
        Method("dbcache", "residual", 8, 0, True, True, 8),
        # TeaCache4FLUX: the first and the last step always run.
        Method("teacache", "input", 0, 0, False, False, 1, 1),
        # diffusers, hooks/mag_cache.py: retention_ratio 0.2.
        Method("magcache", "", 0, 0, False, False, 0.2),
        # A schedule of one's own: nothing is compared.
        Method("none", "", 0, 0, False, True, 1),
    )
}
_BY_SHARE = ("fbcache", "dbcache", "teacache", "magcache")
_FIELDS = (
    "cache",
    "share",
    "fn",
    "bn",
    "warmup",
    "joined",
    "steps",
    "ratios",
    "threshold",
    "max_skip",
    "retention",
)
_MOST = 100_000  # steps, or blocks: no denoiser has as many
_MAG_DEFAULTS = {"threshold": 0.06, "max_skip": 3, "retention": 0.2}  # diffusers' MagCacheConfig


class Kind(NamedTuple):
    """What a step does. tested: it compares. hit: what the method caches is skipped. run: these blocks run and no others."""

    tested: bool
    hit: bool = False
    run: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache as asked for: a method, and its hits as a share of the steps, listed, or by MagCache's rule from `ratios`."""

    given: str
    method: Method
    share: float | None = None
    listed: tuple[Kind, ...] | None = None
    ratios: tuple[float, ...] = ()
    rule: tuple[float, int, float] = (0.06, 3, 0.2)

    def kinds(self, steps: int) -> list[Kind]:
        """What each of `steps` steps does.

        Raises:
            InputError: hits that do not fit, or a list of another length.
        """
        warmup = self.warmup(steps)
        if self.listed is not None:
            if len(self.listed) != steps:
                raise InputError(
                    f"{self.given}: steps lists {len(self.listed)} steps, the denoiser is evaluated {steps} times; "
                    "list as many, or give --steps"
                )
            if self.listed and (self.listed[0].hit or self.listed[0].run is not None):
                raise InputError(f"{self.given}: steps: the first skips blocks, but nothing is cached yet")
            hits = [kind.hit for kind in self.listed]
        elif self.ratios:
            hits = mag_hits(self.ratios, steps, *self.rule)
        else:
            hits = self._spread(steps, warmup)
        tests = bool(self.method.tests)
        plain = [
            Kind(tests and (hit or warmup <= number < steps - self.method.last), hit)
            for number, hit in enumerate(hits)
        ]
        if self.listed is None:
            return plain
        return [kind._replace(run=one.run) for kind, one in zip(plain, self.listed, strict=True)]

    def warmup(self, steps: int) -> int:
        """Steps at first that run whole."""
        given = self.method.warmup
        return max(int(given * steps + 0.5) if isinstance(given, float) else given, 1)

    def _spread(self, steps: int, warmup: int) -> list[bool]:
        assert self.share is not None
        hits = round(self.share * steps)
        free = max(steps - warmup - self.method.last, 0)
        if hits > free:
            raise InputError(
                f"cache {self.given!r}: {hits} of {steps} steps cannot hit, as {steps - free} always run whole; "
                f"give a share of at most {int(free / steps * 1000) / 1000:g}, or another warmup"
            )
        spread = [(at + 1) * hits // free > at * hits // free for at in range(free)]
        return [False] * warmup + spread + [False] * (steps - warmup - free)


def cache_of(given: str) -> Cache:
    """What `--cache` says.

    Raises:
        InputError: an unknown method, unknown settings, values that cannot be: all of them.
    """
    if given.endswith((".yaml", ".yml")):
        return _of_fields(given, _read(given), Problems(), given)
    name, *rest = given.split(":")
    if name not in _BY_SHARE:
        raise unknown("cache", name, _BY_SHARE)
    fields: dict[str, Any] = {"cache": name}
    problems, place = Problems(), f"cache {given!r}"
    for part in rest:
        key, equals, value = part.rpartition("=")
        key = key if equals else "share"
        fields[key] = 0
        with problems.noted(key):
            fields[key] = _number(key, value)
    if "share" not in fields:
        problems.note(
            "does not say how many steps hit, which depends on the picture (a threshold is not enough without "
            f"weights); give the share, as {name}:0.5, or a YAML file with a list of steps",
            "ways",
        )
    return _of_fields(given, fields, problems, place)


def _of_fields(given: str, fields: Mapping[str, Any], problems: Problems, place: str) -> Cache:
    for field in fields:
        if field not in _FIELDS:
            problems.note(str(unknown("field", str(field), _FIELDS)))
    name = str(fields.get("cache", "none"))
    if name not in METHODS:
        problems.note(str(unknown("cache", name, METHODS)))
        problems.raise_any(place)
    method = _method(METHODS[name], fields, problems)
    ways = [key for key in ("share", "steps", "ratios") if key in fields]
    if (
        len(ways) != 1
        or (method.name == "none" and ways != ["steps"])
        or ("ratios" in ways and name != "magcache")
    ):
        problems.note(
            "give one of share (of the steps that hit), steps (a list of what each does)"
            + (" or ratios (MagCache's magnitudes)" if name == "magcache" else ""),
            "ways",
        )
    share = None
    if "share" in fields:
        with problems.noted("share"):
            share = _number("share", fields["share"])
            if not 0 <= share <= 1:
                raise InputError(f"share is {share:g}; it is of the steps, 0 to 1")
    listed = _listed(fields["steps"], problems) if "steps" in fields else None
    ratios = _ratios(fields["ratios"], problems) if "ratios" in fields else ()
    rule = _rule(fields, problems)
    problems.raise_any(place)
    return Cache(given, method, share, listed, ratios, rule)


def _method(usual: Method, fields: Mapping[str, Any], problems: Problems) -> Method:
    """A method with the settings that are given."""
    changed: dict[str, Any] = {}
    for key, least in (("fn", 0), ("bn", 0), ("warmup", 1)):
        if key in fields:
            with problems.noted(key):
                changed[key] = _whole(key, fields[key], least)
    for key in ("fn", "bn", "joined"):
        if key in fields and usual.name != "dbcache":
            problems.note(f"{key} is dbcache's; {usual.name} has no blocks to choose, leave it out", key)
    if "joined" in fields:
        if fields["joined"] not in (0, 1):
            problems.note(
                f"joined is {fields['joined']!r}; it must be 1 (all lists are one row) or 0", "joined"
            )
        changed["each_list"] = not fields["joined"]
    if usual.name == "dbcache" and changed.get("fn", usual.fn) < 1:
        problems.note("fn is 0; dbcache compares what the first blocks add, so at least 1 runs", "fn")
    return replace(usual, **changed)


def _rule(fields: Mapping[str, Any], problems: Problems) -> tuple[float, int, float]:
    """MagCache's."""
    found = dict(_MAG_DEFAULTS)
    for key, most in (("threshold", None), ("max_skip", None), ("retention", 1.0)):
        if key in fields:
            with problems.noted(key):
                found[key] = _between(key, fields[key], most)
    return found["threshold"], int(found["max_skip"]), found["retention"]


def _ratios(value: Any, problems: Problems) -> tuple[float, ...]:
    found = []
    with problems.noted("ratios"):
        for each in _list("ratios", value):
            found.append(_number("ratios", each))
            if found[-1] <= 0:
                raise InputError(f"ratios holds {found[-1]:g}; a ratio of magnitudes is above 0")
    return tuple(found)


def mag_hits(
    ratios: Sequence[float], steps: int, threshold: float, max_skip: int, retention: float
) -> list[bool]:
    """Which steps MagCache skips: as long as the errors that the ratios of magnitudes foretell add up to at most `threshold`, and
    no more than `max_skip` in a row (diffusers, hooks/mag_cache.py, MagCacheHeadHook).

    ratios: of the residual's magnitude to the step's before; stretched to the number of steps by the nearest.
    """
    scale = (len(ratios) - 1) / (steps - 1) if steps > 1 else 0.0
    at_steps = [ratios[round(at * scale)] for at in range(steps)] if steps > 1 else [ratios[-1]]
    hits, ratio, error, skipped = [], 1.0, 0.0, 0
    for at, change in enumerate(at_steps):
        hit = False
        if at >= int(retention * steps + 0.5):
            ratio, skipped = ratio * change, skipped + 1
            error += abs(1.0 - ratio)
            hit = at > 0 and error <= threshold and skipped <= max_skip
            if not hit:
                ratio, error, skipped = 1.0, 0.0, 0
        hits.append(hit)
    return hits


# ---- a file


def _read(path: str) -> dict[str, Any]:
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: is no schedule; it must be a mapping with `cache:` and `steps:` (docs/steps.md)"
        )
    return found


def _listed(steps: Any, problems: Problems) -> tuple[Kind, ...]:
    """What every step does; what is wrong with one is noted, and the others are read."""
    found: list[Kind] = []
    entries: list[Any] = []
    with problems.noted("steps"):
        entries = _list("steps", steps)
    for number, entry in enumerate(entries):
        with problems.noted():
            found += _entry(f"steps[{number}]", entry)
        if len(found) > _MOST:
            problems.note(f"steps[{number}]: more than {_MOST:,} steps are listed up to here")
            break
    return tuple(found)


def _entry(where: str, entry: Any) -> list[Kind]:
    fields = {"do": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not fields.keys() <= {"do", "run", "times"}:
        raise InputError(f"{where} is {entry!r}; it must be full, hit, or a mapping of do or run, and times")
    if ("do" in fields) == ("run" in fields) or fields.get("do", "full") not in ("full", "hit"):
        raise InputError(
            f"{where} is {entry!r}; it must `do: full` or `do: hit`, or name the blocks that `run`"
        )
    run = _blocks(where, fields["run"]) if "run" in fields else None
    kind = Kind(False, fields.get("do") == "hit", run)
    return [kind] * _whole(f"{where}: times", fields.get("times", 1), 1)


def _blocks(where: str, text: Any) -> tuple[int, ...]:
    """'0-7,55' as numbers."""
    found: set[int] = set()
    for part in str(text).replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise InputError(
                f"{where}: run is {text!r}; it must be numbers of blocks from 0 to {_MOST:,}, as 0-7,55-56"
            )
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(_MOST)) and int(text) <= _MOST


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{field} is {value!r}; it must be a list")
    return value


def _whole(field: str, value: Any, least: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise InputError(f"{field} is {value!r}; it must be a whole number from {least} to {_MOST:,}")
    return value


def _number(field: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or number != number or number in (float("inf"), float("-inf")):
        raise InputError(f"{field} is {value!r}; it must be a number")
    return number


def _between(field: str, value: Any, most: float | None) -> float:
    """A number from 0 to `most`, of any size if None."""
    number = _number(field, value)
    if number < 0 or (most is not None and number > most):
        allowed = f"from 0 to {most:g}" if most is not None else "at least 0"
        raise InputError(f"{field} is {number:g}; it must be {allowed}")
    return number
