"""LLaMA2-7B (Touvron et al. 2023): a prompt in one forward pass, then a token at a time with a cache.

transformers' LlamaForCausalLM with its default configuration, which is the 7B model's: 32 layers of 4096, 32 heads,
11008 in the feed-forward, a vocabulary of 32,000; 6.74 B.

Assumed: a prompt of 512 tokens and 128 new ones, the first of which the prompt's pass gives. The next token is the most
likely one, and nothing waits for it: an end of the text is not looked for.

Decoding steps differ in the cache's length only. They are stored in blocks of 16 steps, each as 16 times the step in
its middle. Latency is very nearly linear in the length over so few tokens; the lengths' sum is short by half a token a
block. Where every step is asked for (`all_steps`), each has its own length: the same operators, 127 steps instead of 8.
"""

from typing import Any

from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

PROMPT_TOKENS = 512
BLOCK = 16
# The default, said again because a later version of transformers may choose another.
CONFIG: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "attn_implementation": "sdpa",
}  # fmt: skip


def blocks(first: int, last: int, size: int) -> list[range]:
    """Lengths from first to last in blocks of `size`, and of what is left.

    >>> blocks(1, 10, 4)
    [range(1, 5), range(5, 9), range(9, 11)]
    """
    return [range(start, min(start + size, last + 1)) for start in range(first, last + 1, size)]


def record_7b(options: Options, recording: Recording) -> None:
    """The phases 'prefill' and 'decode'. The option `steps` is the number of new tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtti.workloads.models.networks.transformer_blocks import KeyValueCache
    from simtti.workloads.models.pipelines.sampling import prompt_tokens, token_ids

    assert options.steps is not None
    config = LlamaConfig(**CONFIG)
    model = recording.add("llama", LlamaForCausalLM, config, dtype=options.dtype)
    for layer in model.model.layers:
        layer.self_attn.is_cross_attention = False
    prompt = prompt_tokens(options, PROMPT_TOKENS)
    cache = KeyValueCache(
        layers=config.num_hidden_layers, batch=options.batch, heads=config.num_key_value_heads,
        length=prompt + options.steps, head_dim=config.hidden_size // config.num_attention_heads,
        dtype=options.dtype, device=recording.device,
    )  # fmt: skip

    def next_token(ids: torch.Tensor) -> torch.Tensor:
        with recording.scope("generate"):
            logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits[:, -1].argmax(-1, keepdim=True)

    with recording.step("prefill", domain="text"):
        token = next_token(token_ids(recording, options, PROMPT_TOKENS))
    # A step's query is the token before, whose key the step appends: it attends to prompt + 1 at first.
    for length, count in recording.representatives(blocks(prompt + 1, prompt + options.steps - 1, BLOCK)):
        cache.length = length - 1
        with recording.step("decode", domain="text", count=count):
            token = next_token(token)


WORKLOADS = (
    Workload(
        name="llama2-7b",
        task="text-to-text",
        architecture="autoregressive transformer",
        defaults=Options(prompt_tokens=512, steps=128),
        parameters={"llama": 6_738_415_616},
        source="Touvron et al., 2023 (arXiv 2307.09288): 7 B; steps are new tokens, after a prompt of 512",
        url="https://huggingface.co/meta-llama/Llama-2-7b-hf",
        builder=record_7b,
        max_tokens=4096,
        max_steps=3584,
        group="study",
        place=70,
    ),
)
