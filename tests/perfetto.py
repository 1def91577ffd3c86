"""What Perfetto's importer would count as an error or leave out of a file of Chrome trace events; its trace processor is no Python.

After perfetto's src/trace_processor/importers: json/json_trace_parser_impl.cc and json_trace_tokenizer.cc (which events there are, how
times are read), common/slice_tracker.cc (a slice that overlaps another of its track in part is dropped:
slice_drop_overlapping_complete_event), common/flow_tracker.cc (flow_no_enclosing_slice, flow_end_without_start, flow_duplicate_id),
common/event_tracker.cc (counters).
"""

import json
import math
from collections import Counter, defaultdict

MOST_BYTES = (
    1 << 30
)  # a browser's memory is the limit; WebAssembly has 4 GiB of it, and events take more than their text
_NEEDS = {
    "X": ("name", "dur"),
    "C": ("name", "args"),
    "s": ("id", "cat", "name"),
    "f": ("id", "cat", "name", "bp"),
    "M": ("name", "args"),
}


def _ns(microseconds):
    """As json_trace_tokenizer.cc reads a time: llround."""
    return round(microseconds * 1000)


def problems(text):
    """Each kind of problem with how often it is there; empty for a file without any."""
    found = Counter()
    if len(text.encode()) > MOST_BYTES:
        found["too large for a browser"] += 1
    events = json.loads(text, parse_constant=lambda name: found.update([f"{name} is no JSON"]))["traceEvents"]
    last_ns = -math.inf
    named, tracks, processes = defaultdict(set), set(), set()
    opened, begun, ended = defaultdict(list), {}, set()
    for event in events:
        ph, track = event.get("ph"), (event.get("pid"), event.get("tid"))
        missing = [key for key in ("ts", "pid", "tid", *_NEEDS.get(ph, ())) if key not in event]
        if ph not in _NEEDS or missing:
            found[f"{ph} lacks {missing}"] += 1
            continue
        if not all(isinstance(number, int) and 0 <= number < 1 << 32 for number in track):
            found["pid or tid is no whole number"] += 1
        if ph == "M":
            named[event["name"]].add(track if event["name"] == "thread_name" else track[0])
            continue
        at_ns = _ns(event["ts"])
        if not math.isfinite(event["ts"]) or at_ns < 0:
            found["a time that is none"] += 1
        if at_ns < last_ns:
            found["out of order"] += 1
        last_ns = at_ns
        processes.add(track[0])
        if ph == "C":
            if not all(
                isinstance(value, (int, float)) and math.isfinite(value) for value in event["args"].values()
            ):
                found["a counter that is no number"] += 1
            continue
        tracks.add(track)
        stack = opened[track]
        if ph == "X":
            end_ns = at_ns + _ns(event["dur"])
            if event["dur"] < 0:
                found["a slice that ends before it begins"] += 1
            while stack and stack[-1][1] <= at_ns and stack[-1] != (at_ns, at_ns):
                stack.pop()
            if stack and end_ns > stack[-1][1]:
                found["slice_drop_overlapping_complete_event"] += 1
                continue
            stack.append((at_ns, end_ns))
            continue
        if not stack or not stack[-1][0] <= at_ns <= stack[-1][1]:
            found["flow_no_enclosing_slice"] += 1
        key = (event["cat"], event["name"], event["id"])
        if ph == "s":
            if key in begun:
                found["flow_duplicate_id"] += 1
            begun[key] = at_ns
        elif key not in begun:
            found["flow_end_without_start"] += 1
        else:
            ended.add(key)
            if at_ns < begun[key]:
                found["an arrow back in time"] += 1
    found["an arrow without an end"] += len(begun.keys() - ended)
    found["a track without a name"] += len(tracks - named["thread_name"])
    found["a process without a name"] += len(processes - named["process_name"])
    threads = [thread for _, thread in named["thread_name"]]
    found["a thread's number in two processes"] += len(threads) - len(set(threads))
    return {kind: count for kind, count in found.items() if count}
