"""The text encoders that today's models share, by the configurations released with them."""

from typing import Any

from simtti.workloads.recording import Recording

# google/t5-v1_1-xxl: the encoder half has 4.76 B.
T5_XXL: dict[str, Any] = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
T5_XXL_PARAMETERS = 4_762_310_656
# google-t5/t5-11b: the encoder half has 4.76 B, most of it in MLPs of 65,536.
T5_11B: dict[str, Any] = {
    "d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128, "vocab_size": 32128,
    "feed_forward_proj": "relu",
}  # fmt: skip
T5_11B_PARAMETERS = 4_864_791_552
# google/umt5-xxl: a relative position bias in every layer and a vocabulary of 256,384; 5.68 B.
UMT5_XXL: dict[str, Any] = {**T5_XXL, "vocab_size": 256384}
UMT5_XXL_PARAMETERS = 5_680_910_336
# google/mt5-xl: 1.67 B.
MT5_XL: dict[str, Any] = {
    "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "vocab_size": 250112,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
# google/byt5-small's encoder, with the tokens of Glyph-SDXL-v2 (colours and fonts beside bytes), 0.22 B.
BYT5_SMALL: dict[str, Any] = {
    "d_model": 1472, "d_kv": 64, "d_ff": 3584, "num_layers": 12, "num_heads": 6, "vocab_size": 1510,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
BYT5_SMALL_PARAMETERS = 219_314_944
# google/flan-ul2: 8.6 B in its encoder.
FLAN_UL2: dict[str, Any] = {
    "d_model": 4096, "d_kv": 256, "d_ff": 16384, "num_layers": 32, "num_heads": 16, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
# meta-llama/Meta-Llama-3.1-8B-Instruct, 8.03 B.
LLAMA_3_1_8B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA_3_1_8B_PARAMETERS = 8_030_261_248
# Qwen/Qwen3-4B, 4.02 B, its output projection the embeddings again.
QWEN3_4B: dict[str, Any] = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_4B_PARAMETERS = 4_022_468_096
# Qwen/Qwen3-8B, 8.19 B.
QWEN3_8B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_8B_PARAMETERS = 8_190_735_360
# Qwen/Qwen3-VL-4B-Instruct, 4.4 B with the vision tower, which a prompt alone does not use.
QWEN3_VL_ROPE: dict[str, Any] = {
    "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True,
}  # fmt: skip
QWEN3_VL_4B: dict[str, Any] = {
    **QWEN3_4B,
    "max_position_embeddings": 262144,
    "rope_parameters": QWEN3_VL_ROPE,
}
QWEN3_VL_4B_VISION: dict[str, Any] = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304, "out_hidden_size": 2560,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
QWEN3_VL_4B_PARAMETERS = 4_437_815_808
# Qwen/Qwen3-VL-8B-Instruct, 8.8 B with the vision tower, which a prompt alone does not use.
QWEN3_VL_8B: dict[str, Any] = {
    **QWEN3_8B,
    "max_position_embeddings": 262144,
    "rope_parameters": QWEN3_VL_ROPE,
}
QWEN3_VL_8B_PARAMETERS = 8_767_123_696
# Qwen/Qwen3-VL-32B-Instruct, 33.4 B with the vision tower, which a prompt alone does not use.
QWEN3_VL_32B: dict[str, Any] = {
    "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144,
    "rope_parameters": QWEN3_VL_ROPE,
}  # fmt: skip
QWEN3_VL_32B_PARAMETERS = 33_357_390_064
# Of Qwen3-VL 8B and 32B; `out_hidden_size` is the language model's width.
QWEN3_VL_VISION: dict[str, Any] = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
# Qwen/Qwen2.5-VL-7B-Instruct, 8.3 B with the vision tower, which a prompt alone does not use.
QWEN_2_5_VL_7B: dict[str, Any] = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
QWEN_2_5_VL_7B_VISION: dict[str, Any] = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
QWEN_2_5_VL_7B_PARAMETERS = 8_292_166_656
# Its language model, without the output projection.
QWEN_2_5_VL_7B_TEXT_PARAMETERS = 7_070_619_136
# mistralai/Mistral-Small-3.2-24B-Instruct-2506, 24.0 B with the vision tower, which a prompt alone does not use.
MISTRAL_SMALL_24B: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
    "max_position_embeddings": 131072,
}  # fmt: skip
PIXTRAL_24B_VISION: dict[str, Any] = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "head_dim": 64, "patch_size": 14, "image_size": 1540,
}  # fmt: skip
MISTRAL_SMALL_24B_PARAMETERS = 24_011_361_280
# mistralai/Ministral-3-3B without its output projection, the embeddings again: 3.8 B with the vision tower.
MINISTRAL_3_3B: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 3072, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
    "max_position_embeddings": 262144,
}  # fmt: skip
MINISTRAL_3_3B_PARAMETERS = 3_849_090_048

# google/gemma-3-12b-it, 12.2 B with the vision tower, which a prompt alone does not use.
GEMMA_3_12B: dict[str, Any] = {
    "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "sliding_window": 1024,
}  # fmt: skip
GEMMA_3_VISION: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 896, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
GEMMA_3_12B_PARAMETERS = 12_187_325_040


def add_t5(recording: Recording, name: str, config: dict[str, Any], dtype: str) -> Any:
    """Register a T5 encoder. In fp16 the library keeps its output projections in fp32."""
    from transformers import T5Config, T5EncoderModel

    return recording.add(name, T5EncoderModel, T5Config(**config), dtype=dtype)
