"""How operators become kernels: which attention, which way of launching."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simtti.errors import InputError
from simtti.hw_configs import families
from simtti.workloads.trace import Trace

ATTENTION = ("flash", "efficient", "baseline", "math")  # and every library that a device file may name
LAUNCH = ("eager", "graph", "compiled", "compiled-graph")
COMPILED = ("compiled", "compiled-graph")  # ways of launching that go through torch.compile
GRAPHS = ("graph", "compiled-graph")  # and through CUDA graphs
COMPILE = ("denoiser", "all")
LAYOUT = ("recorded", "channels-last")
MASK = ("keep", "drop", "varlen")


@dataclass(frozen=True, slots=True)
class Policy:
    """How operators become kernels.

    attention: 'flash' (the device's fused kernel), 'efficient' (xformers-style), 'baseline' (unfused, in the model's dtype: two
    products and a softmax, scores in HBM), 'math' (PyTorch's own unfused backend, which computes halves in fp32), or a library
    of kernels/libraries.py by its name.
    cross_attention: the same for attention to a text or another sequence; '': as `attention`.
    launch: 'eager'; 'graph': the whole inference in CUDA graphs, so that the host costs nothing; 'compiled': torch.compile, whose
    generated kernels and host code take the place of the model's (lowering/fusion.py); 'compiled-graph': the same in CUDA graphs
    (torch's modes reduce-overhead and max-autotune).
    compile: what is compiled: 'denoiser', the phases whose steps can be set, the rest staying eager; or 'all'.
    layout: 'recorded', as the trace has it; 'channels-last': pipeline.unet.to(memory_format=torch.channels_last) and the like.
    denoiser: those phases, found by `settled`.
    tf32: whether fp32 matrix products may be rounded to TF32 (torch.backends.cuda.matmul.allow_tf32, off by default).
        Convolutions always may (torch.backends.cudnn.allow_tf32, on by default).
    mask: 'keep': masks are added to the scores, which few kernels can; 'drop': those that only hide padding are not, and padding is
    attended to; 'varlen': nor are padded tokens computed, as where sequences are packed one after another (flash_attn_varlen_func), as
    far as the trace says how many there are; '': what the trace's own code does (see `settled`).
    dependent_launch: programmatic dependent launch: a kernel is set up while the one before it on the stream drains.
    """

    attention: str = "flash"
    launch: str = "eager"
    compile: str = "denoiser"
    layout: str = "recorded"
    mask: str = ""
    denoiser: frozenset[str] = frozenset()
    cross_attention: str = ""
    dependent_launch: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        attention: tuple[str, ...] = ATTENTION
        if {self.attention, self.cross_attention} - {*attention, ""}:
            attention = tuple(dict.fromkeys((*ATTENTION, *families.shared().attention_kernels)))
        options = (("launch", LAUNCH), ("compile", COMPILE), ("layout", LAYOUT), ("mask", ("", *MASK)))
        attentions = (("attention", attention), ("cross_attention", ("", *attention)))
        for field, allowed in (*attentions, *options):
            if getattr(self, field) not in allowed:
                raise InputError(
                    f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(filter(None, allowed))}"
                )

    def attention_of(self, kind: str) -> str:
        """What answers attention of a kind, 'self' or 'cross'."""
        return (self.cross_attention if kind == "cross" else "") or self.attention

    def compiles(self, phase: str) -> bool:
        """Whether torch.compile has made the kernels of a phase."""
        everything = self.compile == "all" or not self.denoiser
        return self.launch in COMPILED and (everything or phase in self.denoiser)

    def launch_of(self, phase: str) -> str:
        """How the operators of a phase are launched: one of LAUNCH."""
        return "eager" if self.launch in COMPILED and not self.compiles(phase) else self.launch


def settled(policy: Policy, trace: Trace) -> Policy:
    """`policy` for this trace. Masks are kept unless the trace says that those who run it do not. The denoiser is the phases whose
    steps can be set."""
    return replace(
        policy,
        mask=policy.mask or str(trace.provenance.get("mask", "keep")),
        denoiser=frozenset(trace.schedule),
    )


def captured_with(trace: Trace) -> Policy:
    """The policy a capture was taken under; the default one for traces that do not say.

    A capture whose 'baseline' does not say what its scores are in has torch's MATH backend under that name, in fp32.
    """
    attention = str(trace.provenance.get("attention", "flash"))
    if attention == "baseline" and "scores" not in trace.provenance:
        attention = "math"
    # It ran the model as it is: what others leave out of it, it did not.
    return settled(Policy(attention=attention, mask="keep"), trace)
