"""How a model's kernels are launched in a capture: one by one, compiled, or as CUDA graphs.

    forward = launched(unet.forward, "compiled")
    forward(latents, timestep, prompt)

The names are those of `simtti run --launch`. What is compiled, or made a graph, is the model in the denoising loop; what stands
around it (sampler, guidance, text encoder, decoder) is launched by Python. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simtti.errors import unknown

LAUNCH = ("eager", "graph", "compiled", "compiled-graph")
# Before a graph is taken: libraries choose kernels and take workspaces at the first calls.
_WARM_UP = 3


def check_launch(launch: str) -> None:
    """Raises:
    InputError: no such way of launching.
    """
    if launch not in LAUNCH:
        raise unknown("way of launching", launch, LAUNCH)


def launched(forward: Callable[..., Any], launch: str) -> Callable[..., Any]:
    """A model's forward, launched so.

    'compiled': torch.compile as it comes. 'compiled-graph': its mode 'reduce-overhead', which uses CUDA graphs. 'graph': the model's
    own kernels as a CUDA graph for each shape of its operands; results are overwritten by the next call. A device without CUDA
    graphs has 'graph' run as 'eager'.
    """
    import torch

    if launch == "compiled":
        return torch.compile(forward)
    if launch == "compiled-graph":
        return torch.compile(forward, mode="reduce-overhead")
    if launch == "graph" and torch.cuda.is_available():
        return _Graphed(forward)
    return forward


class _Graphed:
    """A forward as CUDA graphs, one for each shape of its operands. What is not a tensor must stay as it was at the first call."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._graphs: dict[Any, tuple[Any, list[Any], Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_flatten, tree_unflatten

        given, structure = tree_flatten((args, kwargs))
        tensors = [(at, value) for at, value in enumerate(given) if isinstance(value, torch.Tensor)]
        key = tuple((at, tuple(value.shape), value.dtype, value.device.type) for at, value in tensors)
        if key not in self._graphs:
            there = [value.clone() if isinstance(value, torch.Tensor) else value for value in given]
            static_args, static_kwargs = tree_unflatten(there, structure)
            self._graphs[key] = self._taken(static_args, static_kwargs, there)
        graph, there, result = self._graphs[key]
        for at, value in tensors:
            there[at].copy_(value)
        graph.replay()
        return result

    def _taken(self, args: Any, kwargs: Any, there: list[Any]) -> tuple[Any, list[Any], Any]:
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._forward(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._forward(*args, **kwargs)
        return graph, there, result
