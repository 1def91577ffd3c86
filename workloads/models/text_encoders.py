"""The text encoders that today's models share, by the configurations released with them."""

from typing import Any

from simtti.workloads.recording import Recording

# google/t5-v1_1-xxl: the encoder half has 4.76 B.
T5_XXL: dict[str, Any] = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
T5_XXL_PARAMETERS = 4_762_310_656
# google/umt5-xxl: a relative position bias in every layer and a vocabulary of 256,384; 5.68 B.
UMT5_XXL: dict[str, Any] = {**T5_XXL, "vocab_size": 256384}
UMT5_XXL_PARAMETERS = 5_680_910_336
# google/mt5-xl: 1.67 B.
MT5_XL: dict[str, Any] = {
    "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "vocab_size": 250112,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
# google/flan-ul2: 8.6 B in its encoder.
FLAN_UL2: dict[str, Any] = {
    "d_model": 4096, "d_kv": 256, "d_ff": 16384, "num_layers": 32, "num_heads": 16, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip


def add_t5(recording: Recording, name: str, config: dict[str, Any], dtype: str) -> Any:
    """Register a T5 encoder. In fp16 the library keeps its output projections in fp32."""
    from transformers import T5Config, T5EncoderModel

    return recording.add(name, T5EncoderModel, T5Config(**config), dtype=dtype)
