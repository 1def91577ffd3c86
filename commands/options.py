"""What commands share: their options, and what is said of them the same way everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from simtti.errors import InputError
from simtti.files import check_writable, json_text, write_text

if TYPE_CHECKING:
    import pandas as pd

Command = TypeVar("Command", bound=Callable[..., Any])

workers_option = click.option(
    "--workers", type=int, help="Processes; as many as there are cores if not given."
)
table_option = click.option(
    "--out", required=True, type=click.Path(), help="Where to write the table: .csv or .parquet."
)
measurements_option = click.option(
    "--measurements",
    "files",
    required=True,
    multiple=True,
    type=click.Path(),
    help="Measurement tables or folders (simtti import measurements makes them); may be given again.",
)


def attention_option(command: Command) -> Command:
    """--attention, and --cross-attention for what is not self-attention."""
    command = click.option(
        "--cross-attention",
        default="",
        help="The same for attention to a text or another sequence; as --attention if not given.",
    )(command)
    return click.option(
        "--attention",
        default="",
        help="As the engine has it; flash (what PyTorch takes on the device), efficient, baseline (unfused, in the model's dtype), math (PyTorch's unfused "
        "backend, in fp32), or a library: flash-attention-1, -2, -3, -4, cudnn, sage (SageAttention 2.2), sage-1 (1.0.6), flex-attention, trtllm-fmha. What cannot take a call is replaced, "
        "as the library's dispatch does, and the result says so.",
    )(command)


engine_option = click.option(
    "--engine",
    default="diffusers",
    show_default=True,
    help="Who runs it, which decides attention, launch and PyTorch where they are not given: diffusers, sglang, vllm-omni, xdit, "
    "cosmos, official (hw_configs/engines.yaml has what each does).",
)
mask_option = click.option(
    "--mask",
    default="",
    help="keep: masks that hide padding are added to the scores (diffusers; only the memory-efficient kernel can); drop: they are not, and "
    "padding is attended to; varlen: nor are padded tokens computed (flash_attn_varlen_func). If not given, as the workload is mostly run.",
)
quantization_option = click.option(
    "--quantization",
    help="The denoiser's linear layers in fewer bits, as torchao does it: fp8, fp8-row, fp8-block, mxfp8, nvfp4, int8, fp8-weight-only, "
    "int8-weight-only, int4-weight-only; or nunchaku: svdq-int4, svdq-nvfp4.",
)
cache_option = click.option(
    "--cache",
    help="Skip transformer blocks in the share of the steps that hit, as fbcache:0.6, teacache:0.5, dbcache:0.5:fn=8:bn=0:warmup=8 or "
    "magcache:0.5, or as a YAML schedule says (docs/steps.md).",
)
guidance_option = click.option(
    "--guidance",
    help="Classifier-free guidance: on, as the workload runs it; off; in-turn, two passes instead of a batch of two; interval:0.2-0.8, "
    "in these shares of the steps alone. All but on need torch (docs/steps.md).",
)
strength_option = click.option(
    "--strength",
    type=float,
    help="Image to image: the share of --steps that is run after the image is encoded (needs torch).",
)
lora_option = click.option(
    "--lora",
    type=int,
    help="An adapter of this rank at each attention projection of the denoiser, not fused into the weights; fused ones change nothing.",
)
offload_option = click.option(
    "--offload",
    default="none",
    show_default=True,
    help="Weights lie in the host's memory, as in diffusers: model, one component on the GPU at a time; sequential, one layer; group, "
    "one block, while the next one's weights come on a stream of their own.",
)
pinned_option = click.option(
    "--pinned/--pageable",
    default=None,
    help="With --offload: the host's memory that weights lie in. If not given, as diffusers has it: pinned for the blocks of group, "
    "pageable else.",
)
pytorch_option = click.option(
    "--pytorch",
    help="The release whose kernels run: 2.11 (2.8 and later: cuBLAS's nvjet on Hopper, RMSNorm in one kernel) or 2.6 (up to it: xmma, "
    "RMSNorm by its parts); the device file's if not given.",
)
set_option = click.option(
    "--set",
    "changes",
    metavar="FIELD=VALUE",
    multiple=True,
    help="A number of the device that differs (simtti hw NAME lists them): hbm_bytes_per_s=1.5x, l2_capacity_bytes=100MB, "
    "power_limit_w=500; may be given again.",
)
host_option = click.option(
    "--host",
    default="default",
    show_default=True,
    help="The machine that launches the kernels: a name (slow-vm, default, desktop) or a file that `simtti capture host` wrote.",
)


tf32_option = click.option(
    "--tf32",
    is_flag=True,
    help="Let fp32 matrix products be rounded to TF32; PyTorch's switch for it is off, the one for convolutions on.",
)


interval_option = click.option(
    "--no-interval",
    "interval",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Leave out between what the figures lie in half of such predictions, and in 9 of 10.",
)


def json_option(what: str) -> Callable[[Command], Command]:
    """--json: what is written, in words."""
    return click.option(
        "--json", "json_path", help=f"Write {what} as JSON to a file, or to - for standard output."
    )


def shape_options(command: Command) -> Command:
    """The options of `simtti.record` that say what is made, but for guidance."""
    return click.option("--batch", type=int, help="Images (or videos) at once.")(
        shape_options_but_batch(command)
    )


def shape_options_but_batch(command: Command) -> Command:
    options = [
        click.option("--steps", type=int, help="Denoising steps the sampler is asked for."),
        click.option("--height", type=int, help="Image height in pixels."),
        click.option("--width", type=int, help="Image width in pixels."),
        click.option("--frames", type=int, help="Frames of a video."),
        click.option(
            "--vae",
            help="How the VAE decodes: whole, tiled, sliced (one of a batch after another), tiled-sliced; as the workload is mostly "
            "run if not given (simtti workloads).",
        ),
        click.option("--prompt-tokens", type=int, help="Tokens of the prompt, where the workload allows it."),
        click.option("--dtype", help="Weights and activations: fp16, bf16 or fp32."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def part_options(command: Command) -> Command:
    """Which part of a profiler's file: --device, --profiler-step."""
    command = click.option(
        "--profiler-step",
        metavar="N",
        help="Where the file holds several ProfilerSteps: which, or 'all' as one inference; the last usual one if not given.",
    )(command)
    return click.option(
        "--device", type=int, help="Where the file holds several GPUs or ranks: which; never added up."
    )(command)


def step_of(text: str | None) -> int | str | None:
    """--profiler-step as `import_kineto` takes it.

    Raises:
        InputError: neither a number nor 'all'.
    """
    if text is None or text == "all":
        return text
    if not text.isdecimal():
        raise InputError(f"--profiler-step is {text!r}; it must be a number or 'all'")
    return int(text)


def check_outputs(*paths: str | None) -> None:
    """Fail before the work, not after it, where a file could not be written; '-' and None are none.

    Raises:
        InputError: see `check_writable`.
    """
    for path in paths:
        if path not in (None, "-"):
            check_writable(path)


def print_json(found: Any, path: str) -> bool:
    """Write `found` as JSON to a file, or to standard output where the path is '-'. True where it went to standard output,
    so that nothing else may."""
    text = json_text(found)
    if path == "-":
        click.echo(text, nl=False)
        return True
    write_text(path, text)
    return False


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows: Python's own numbers, None for an empty cell."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")  # type: ignore[assignment]
    return rows


def names(text: str | None) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def whole_numbers(option: str, text: str | None) -> list[int]:
    """Whole numbers with commas between, as given to `option`.

    Raises:
        InputError: they are something else.
    """
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"{option} is {text!r}; it must be whole numbers with commas between") from None
