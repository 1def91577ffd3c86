# %% [markdown]
# # Against a measured trace
#
# How near is the model to a real GPU? Captures of an H200 ship with simtti; one of your own is read with `simtti.import_trace` from what
# torch.profiler writes, or taken with `simtti.capture`.

# %%
import simtti
from simtti.workloads.measured import capture_named

capture = capture_named("h200-sxm/stable-diffusion-1.5")
trace = simtti.Trace.load(capture.path)
trace.timing.device["name"], f"{len(trace.timing.kernels):,} kernels measured"

# %% [markdown]
# Operator by operator: each is predicted from its shapes alone and compared with what its kernels took. `bias` below 0 says that the model is
# too fast.

# %%
comparison = simtti.validate(trace)
comparison.summary[["category", "operators", "measured_us", "predicted_us", "ratio", "mape", "bias"]]

# %% [markdown]
# Where is it furthest off, by time?

# %%
table = comparison.table.assign(off_us=lambda rows: (rows.predicted_us - rows.measured_us).abs())
table.groupby(["op", "module"]).off_us.sum().sort_values(ascending=False).head(5)

# %% [markdown]
# The measured times can stand in for the model's: with them only the host, the gaps and the clock are predicted. (`timing="hybrid"` scales
# them to another device by the model's ratio.)

# %%
model = simtti.run("stable-diffusion", hw="h200-sxm")
measured = simtti.run("stable-diffusion", hw="h200-sxm", timing="measured")
{"model": model.latency_s, "measured kernels": measured.latency_s}
