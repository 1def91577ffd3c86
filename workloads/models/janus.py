"""Janus-Pro-7B (Chen et al. 2025, arXiv 2501.17811): an image's tokens written one after another by a language model.

transformers' JanusForConditionalGeneration, by the configuration released with the weights (deepseek-community/Janus-Pro-7B): the
language model is DeepSeek-LLM 7B's, 30 layers of 4096; 576 image tokens of a codebook of 16,384, which a head of its own scores and an
embedding of its own takes in again; a VQ decoder makes 384x384 of 24x24. Guidance by two streams, which are one batch; the second
one's prompt is padding. The vision tower, which reads images, is loaded and not used.

Steps follow the model's `generate`: the prompt's pass gives the first token, and each token is drawn from the guided scores. Assumed:
a prompt of 32 tokens and eight around it; a cache that is written in place and read as far as it is full (`KeyValueCache`), where
transformers' own asks for a mask over all of its length, and DeepSeek's code copies it for every token.

Decoding steps differ in the cache's length only. They are stored in blocks of 64 steps, each as 64 times the step in its middle.
Where every step is asked for (`all_steps`), each has its own length.
"""

from typing import Any

from simtti.workloads.models.llama2 import blocks
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options, Workload

SIZE, PATCH = 384, 16
IMAGE_TOKENS = (SIZE // PATCH) ** 2
CODES = 16384
PROMPT_TOKENS = 32 + 8
BLOCK = 64
LANGUAGE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 102400, "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
# SigLIP's large one.
VISION: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": SIZE, "patch_size": PATCH,
    "projection_dim": 4096, "depth": 2, "num_image_tokens": IMAGE_TOKENS,
}  # fmt: skip
VQ: dict[str, Any] = {"num_embeddings": CODES, "projection_dim": 4096, "image_token_embed_dim": 4096}


def record_pro_7b(options: Options, recording: Recording) -> None:
    """The phases 'prefill', 'decode' (the image's tokens) and 'decoder' (their pixels)."""
    import torch
    from transformers import JanusConfig, JanusForConditionalGeneration

    from simtti.workloads.models.networks.transformer_blocks import KeyValueCache
    from simtti.workloads.models.pipelines.sampling import prompt_tokens, to_host, token_ids

    config = JanusConfig(text_config=LANGUAGE, vision_config=VISION, vq_config=VQ, tie_word_embeddings=False)
    janus = recording.add("janus", JanusForConditionalGeneration, config, dtype=options.dtype)
    language = janus.model.language_model
    for layer in language.layers:
        layer.self_attn.is_cross_attention = False
    prompt = prompt_tokens(options, PROMPT_TOKENS)
    streams = 2 if options.guided else 1
    text = config.text_config
    cache = KeyValueCache(
        layers=text.num_hidden_layers, batch=streams * options.batch, heads=text.num_key_value_heads,
        length=prompt + IMAGE_TOKENS, head_dim=text.hidden_size // text.num_attention_heads,
        dtype=options.dtype, device=recording.device,
    )  # fmt: skip
    ids = torch.zeros(options.batch, IMAGE_TOKENS, dtype=torch.int64, device=recording.device)

    def next_embeddings(embeddings: torch.Tensor, number: int) -> torch.Tensor:
        """Those of the image's token of that number, drawn after the tokens of `embeddings`: (streams x batch, 1, width)."""
        states = language(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).last_hidden_state
        scores = janus.model.generation_head(states[:, -1, :].clone())
        if streams == 2:
            conditional, unconditional = scores.chunk(2)
            scores = unconditional + (conditional - unconditional) * options.guidance
        token = torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1).squeeze(-1)
        ids[:, number] = token
        return janus.prepare_embeddings_for_image_generation(torch.cat([token] * streams).unsqueeze(-1))

    with recording.step("prefill", domain="text"), recording.scope("generate"):
        tokens = token_ids(recording, options, PROMPT_TOKENS).repeat(streams, 1)
        embeddings = next_embeddings(janus.get_input_embeddings()(tokens), 0)
    for length, count in recording.representatives(blocks(prompt + 1, prompt + IMAGE_TOKENS - 1, BLOCK)):
        cache.length = length - 1
        with recording.step("decode", domain="spatial", count=count), recording.scope("generate"):
            embeddings = next_embeddings(embeddings, length - prompt)
    with recording.step("decoder", domain="spatial"), recording.scope("pipeline"):
        to_host(recording, janus.decode_image_tokens(ids))


WORKLOADS = (
    Workload(
        name="janus-pro-7b",
        task="text-to-image",
        architecture="autoregressive transformer",
        defaults=Options(prompt_tokens=PROMPT_TOKENS, height=SIZE, width=SIZE, guidance=5.0, dtype="bf16"),
        parameters={"janus": 7_407_773_323},
        source="Chen et al., 2025 (arXiv 2501.17811): DeepSeek-LLM 7B with heads for image tokens, VQ decoder",
        url="https://huggingface.co/deepseek-community/Janus-Pro-7B",
        builder=record_pro_7b,
        size_multiple=SIZE,
        sizes=(SIZE,),
        max_tokens=16384 - IMAGE_TOKENS,
        place=157,
    ),
)
