# %% [markdown]
# # Find a bottleneck
#
# Where does the time of Stable Diffusion 1.5 on an H100 go, and what would make it shorter?

# %%
import simtti

result = simtti.run("stable-diffusion", hw="h100-sxm", steps=25)
result

# %% [markdown]
# `bottlenecks` says what held each moment back: a resource of the GPU that a kernel keeps busy, latency where a kernel is too small to keep
# any busy, launches, or the host, Python, for which the GPU waits.

# %%
{limit: round(seconds / result.latency_s, 3) for limit, seconds in result.bottlenecks.items()}

# %%
simtti.plot(result)

# %% [markdown]
# The host comes first. A CUDA graph takes it out, and so no new GPU is needed for a first gain.

# %%
graph = simtti.run("stable-diffusion", hw="h100-sxm", steps=25, launch="graph")
f"{result.latency_s:.3f} s eager, {graph.latency_s:.3f} s as a graph"

# %% [markdown]
# Which kernels are left? One row a kernel; `repeats` says how many steps a row stands for.

# %%
kernels = graph.intervals.assign(total_s=lambda table: table.duration_s * table.repeats)
slowest = kernels.groupby(["category", "kernel"]).total_s.sum().sort_values(ascending=False)
slowest.head(8)
