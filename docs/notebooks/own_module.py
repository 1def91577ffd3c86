# %% [markdown]
# # A module of your own
#
# Any `torch.nn.Module` can be simulated. It needs neither weights nor a GPU: torch's meta device has shapes without values.

# %%
import torch

import simtti


class Denoiser(torch.nn.Module):
    """A small transformer over the patches of a latent image."""

    def __init__(self, width: int = 768, depth: int = 6) -> None:
        super().__init__()
        self.into = torch.nn.Linear(16, width)
        block = torch.nn.TransformerEncoderLayer(width, 12, 4 * width, batch_first=True, norm_first=True)
        self.blocks = torch.nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.out = torch.nn.Linear(width, 16)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(self.into(latents)))


with torch.device("meta"):
    model = Denoiser().to(torch.bfloat16)
    latents = torch.empty(2, 4096, 16, dtype=torch.bfloat16)
trace = simtti.record(model, latents, count=20)
trace

# %% [markdown]
# `count` says that the step is done 20 times. The trace runs wherever a workload's name would, and is kept with `trace.save(path)`.

# %%
result = simtti.run(trace, hw="h100-sxm")
result

# %% [markdown]
# Modules keep their names, so that one sees where the time goes:

# %%
by_module = result.intervals.groupby("module").duration_s.sum().sort_values(ascending=False)
by_module.head(6)

# %% [markdown]
# And on other devices; a file, for it is a trace that one may keep:

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    trace.save(path := Path(folder) / "mine.parquet")
    table = simtti.compare(str(path), ["a100-sxm", "h100-sxm", "b200-sxm"], launch="graph", workers=1)
table[["hw", "latency_s", "latency_x", "energy_per_output_j"]]
