"""ml-energy/leaderboard: latency and energy of whole diffusion inferences."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.validation.measurements.sources.names import DTYPES, WORKLOADS, device

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
# ml-energy's older files give neither size nor frames: the defaults of the pipelines of diffusers 0.29. (height, width,
# frames)
DEFAULTS: dict[str, tuple[int, int, int | None]] = {
    "stable-diffusion-1.5": (512, 512, None),
    "stable-diffusion-2.1": (768, 768, None),
    "sdxl": (1024, 1024, None),
    "sdxl-turbo": (512, 512, None),
    "ssd-1b": (1024, 1024, None),
    "sd3-medium": (1024, 1024, None),
    "kandinsky-2.2": (512, 512, None),
    "kandinsky-3": (1024, 1024, None),
    "modelscope-t2v": (256, 256, 16),
    "animatediff": (512, 512, 16),
    "i2vgen-xl": (704, 1280, 16),
    "svd": (576, 1024, 14),
    "svd-xt": (576, 1024, 25),
}


def read(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    import pandas as pd

    for path in sorted(root.rglob("*.json")):
        if path.parent.name == "models" and ("__text-to-" in path.name or "__image-to-" in path.name):
            reader: Callable[[Row, Path, Counter[str]], Iterator[Row]] = _leaderboard_v3
        elif "diffusion" in path.parts and re.fullmatch(r"bs\d+\.json", path.name):
            reader = _leaderboard_v2
        else:
            continue
        try:
            content = json.loads(path.read_text())
            rows = list(reader(content, path, left_out))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a file of the leaderboard: {type(error).__name__}: {error}"
            ) from None
        yield str(path), pd.DataFrame(rows)


def _run(model: str, product: str, left_out: Counter[str]) -> Row | None:
    """The start of a row of a whole run, None where simtti lacks the model or the device."""
    hw = device(product)
    if model not in WORKLOADS:
        left_out[f"no workload for {model}"] += 1
    elif hw is None:
        left_out[f"no device for {product}"] += 1
    else:
        return {"workload": WORKLOADS[model], "hw": hw, "what_is_timed": "run"}
    return None


def _leaderboard_v3(content: Row, path: Path, left_out: Counter[str]) -> Iterator[Row]:
    """public/data/models: one model and task, `configurations` with batch, steps, size, GPUs and their degrees."""
    dtype = DTYPES.get(str(content["weight_precision"]))
    for entry in content["configurations"]:
        row = _run(content["model_id"], entry["gpu_model"], left_out)
        if row is None:
            continue
        kind = "video" if "video_height" in entry else "image"
        degrees = entry.get("parallelization") or entry
        yield row | {
            "dtype": dtype, "batch": entry["batch_size"], "steps": entry["inference_steps"],
            "height": entry[f"{kind}_height"], "width": entry[f"{kind}_width"], "frames": entry.get("num_frames"),
            "gpus": entry["num_gpus"], "ulysses": degrees["ulysses_degree"], "ring": degrees["ring_degree"],
            "latency_s": entry["batch_latency_s"],
            "energy_j": entry[f"energy_per_{kind}_joules"] * entry["batch_size"], "source": "ml-energy v3",
        }  # fmt: skip


def _leaderboard_v2(content: Row, path: Path, left_out: Counter[str]) -> Iterator[Row]:
    """data/diffusion/TASK/GPU/STEPS/MODEL/bsN.json: one run in fp16 on one GPU."""
    row = _run(content["Model"], content["GPU model"], left_out)
    if row is None:
        return
    if row["workload"] not in DEFAULTS:
        left_out[f"no default size for {content['Model']}"] += 1
        return
    height, width, frames = DEFAULTS[row["workload"]]
    batch = content["Batch size"]
    energy = content.get("Batch energy (J)")
    if energy is None:
        energy = next(content[name] for name in content if name.startswith("Energy per ")) * batch
    steps = content.get("Number of inference steps", content.get("Inference steps"))
    yield row | {
        "dtype": "fp16", "batch": batch, "steps": steps, "height": height, "width": width, "frames": frames,
        "gpus": 1, "ulysses": 1, "ring": 1, "latency_s": content["Batch latency (s)"], "energy_j": energy,
        "source": "ml-energy v2",
    }  # fmt: skip
