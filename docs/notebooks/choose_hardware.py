# %% [markdown]
# # Choose hardware
#
# Which GPU makes images with PixArt-Sigma fastest, which cheapest, and how should it run?
#
# Eight at once, 20 steps, from a CUDA graph:

# %%
import simtti

devices = ["l40s", "a100-sxm", "h100-sxm"]
table = simtti.compare("pixart-sigma", devices, [8], launch="graph", steps=20, workers=1)
table[
    [
        "hw",
        "batch",
        "latency_s",
        "latency_x",
        "energy_per_output_j",
        "usd_per_output",
        "largest_batch",
        "bottleneck",
    ]
]

# %% [markdown]
# `latency_x` is over the first device at the same batch. An error that two devices share cancels in their ratio; what is left says how sure
# the order is.

# %%
table[["hw", "batch", "latency_x_p05", "latency_x_p95", "fastest_in"]]

# %% [markdown]
# `advise` looks at every way to run it within a limit: devices, batches, launches, precisions, numbers of GPUs. Here: 20
# steps within ten seconds, one image or eight at once.

# %%
found = simtti.advise(
    "pixart-sigma",
    devices[1:],
    batches=[1, 8],
    launches=["graph"],
    latency_s=10.0,
    most=1,
    steps=20,
    workers=1,
)
found.table[["hw", "batch", "launch", "latency_s", "verdict"]]

# %%
import pandas as pd

pd.concat(found.best, names=["aim"])[["hw", "batch", "latency_s", "usd_per_output", "energy_per_output_j"]]
