# %% [markdown]
# # What if HBM were twice as fast?
#
# A device that does not exist is one that does, with other numbers. Eight images of PixArt-Sigma, 10 steps, on an H100 of twice the bandwidth:

# %%
import simtti

device = simtti.load("h100-sxm")
faster = device.replace(hbm_bytes_per_s="2x")
faster.name, device.hbm_bytes_per_s, faster.hbm_bytes_per_s

# %%
table = simtti.compare("pixart-sigma", [device.name, faster.name], [8], launch="graph", steps=10, workers=1)
table[["hw", "batch", "latency_s", "latency_x", "latency_x_p05", "latency_x_p95"]]

# %% [markdown]
# Why not half the time? What the kernels of the H100 are bound by, in seconds:

# %%
run = simtti.run("pixart-sigma", device, batch=8, steps=10, launch="graph")
run.bottlenecks

# %% [markdown]
# Which resource would bring more? Each a tenth better, everything else as it is:

# %%
import pandas as pd

from simtti.simulator.what_ifs import what_ifs

gains = [(each.resource, 1 - each.latency_s / run.latency_s) for each in what_ifs(run)]
pd.DataFrame(gains, columns=["a tenth more", "time saved"]).head(6)
