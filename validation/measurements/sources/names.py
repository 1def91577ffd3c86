"""What sources call devices, models and precisions, and what is read of their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simtti.errors import InputError
from simtti.files import read_table
from simtti.hw_configs.devices import find_reported

if TYPE_CHECKING:
    import pandas as pd

# Model identifiers at the sources: simtti's workloads.
WORKLOADS = {
    "CompVis/stable-diffusion-v1-4": "stable-diffusion-1.5",  # the same network, other weights
    "prompthero/openjourney-v4": "stable-diffusion-1.5",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2.1",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/sdxl-turbo": "sdxl-turbo",
    "segmind/SSD-1B": "ssd-1b",
    "stabilityai/stable-diffusion-3-medium-diffusers": "sd3-medium",
    "stabilityai/stable-diffusion-3.5-medium": "sd3.5-medium",
    "stabilityai/stable-diffusion-3.5-large": "sd3.5-large",
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky-2.2",
    "kandinsky-community/kandinsky-3": "kandinsky-3",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": "pixart-sigma",
    "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers": "sana-1.6b",
    "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers": "sana-4.8b",
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": "hunyuan-dit",
    "black-forest-labs/FLUX.1-dev": "flux-dev",
    "ali-vilab/text-to-video-ms-1.7b": "modelscope-t2v",
    "guoyww/animatediff-motion-adapter-v1-5-3": "animatediff",
    "ali-vilab/i2vgen-xl": "i2vgen-xl",
    "stabilityai/stable-video-diffusion-img2vid": "svd",
    "stabilityai/stable-video-diffusion-img2vid-xt": "svd-xt",
    "zai-org/CogVideoX-2b": "cogvideox-2b",
    "zai-org/CogVideoX1.5-5B": "cogvideox1.5-5b",
    "tencent/HunyuanVideo": "hunyuan-video",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan2.1-1.3b",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan2.1-14b",
    # as tables of published runs call them
    "Stable Diffusion 1.4": "stable-diffusion-1.5",
    "Stable Diffusion 1.5": "stable-diffusion-1.5",
    "SD v1.5": "stable-diffusion-1.5",
    "SD v2.1": "stable-diffusion-2.1",
    "SDXL": "sdxl",
    "SD3-medium": "sd3-medium",
    "FLUX.1-dev": "flux-dev",
    "FLUX.1 (variant not stated)": "flux-dev",
    "CogVideoX-2b": "cogvideox-2b",
    "CogVideoX1.5-5B": "cogvideox1.5-5b",
    "HunyuanVideo": "hunyuan-video",
    "hunyuanvideo-community/HunyuanVideo": "hunyuan-video",
    "FastVideo/FastHunyuan-diffusers": "hunyuan-video",  # distilled: fewer steps
    "FastHunyuan (HunyuanVideo)": "hunyuan-video",
    "Wan2.1-T2V-1.3B": "wan2.1-1.3b",
    "FastWan2.1-T2V-1.3B": "wan2.1-1.3b",
    "Wan2.1-T2V-14B-720P": "wan2.1-14b",
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": "wan2.1-i2v-14b-720p",
    "Wan2.1-I2V-14B-720P": "wan2.1-i2v-14b-720p",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": "wan2.2-t2v-a14b",
    "Wan2.2-T2V-A14B": "wan2.2-t2v-a14b",
    "Wan2.2-I2V-A14B": "wan2.2-i2v-a14b",
    "Wan2.2-I2V-A14B-720P": "wan2.2-i2v-a14b",
    "CogVideoX-5b": "cogvideox-5b",
    "zai-org/CogVideoX-5b": "cogvideox-5b",
    "ConsisID (CogVideoX-5B)": "cogvideox-5b",  # with a face adapter beside it
    "FLUX.1-schnell": "flux-schnell",
    "black-forest-labs/FLUX.2-dev": "flux.2-dev",
    "FLUX.2-dev": "flux.2-dev",
    "black-forest-labs/FLUX.2-klein-4B": "flux.2-klein-4b",
    "FLUX.2-klein-4B": "flux.2-klein-4b",
    "black-forest-labs/FLUX.2-klein-base-4B": "flux.2-klein-base-4b",
    "Tongyi-MAI/Z-Image-Turbo": "z-image-turbo",
    "Z-Image-Turbo": "z-image-turbo",
    "Qwen-Image-2512": "qwen-image",  # other weights
    "Qwen/Qwen-Image-Edit": "qwen-image-edit",
    "Cosmos-Predict2-2B-Text2Image": "cosmos-predict2-2b-text2image",
    "Cosmos-Predict2-14B-Text2Image": "cosmos-predict2-14b-text2image",
    "Cosmos-Predict2-2B-Video2World": "cosmos-predict2-2b-video2world",
    "Cosmos-Predict2-14B-Video2World": "cosmos-predict2-14b-video2world",
    "LTX-2 19B": "ltx-2",
    "HiDream-ai/HiDream-I1-Full": "hidream-i1-full",
    "HiDream-ai/HiDream-I1-Dev": "hidream-i1-dev",
    "HiDream-ai/HiDream-I1-Fast": "hidream-i1-fast",
    "deepseek-community/Janus-Pro-7B": "janus-pro-7b",
    "BestWishYsh/Helios-Base": "helios-14b",
    "Sana_1600M_4Kpx": "sana-1.6b-4k",
    "Efficient-Large-Model/Sana_1600M_4Kpx_BF16_diffusers": "sana-1.6b-4k",
    "SANA-Video_2B_480p": "sana-video-2b",
    "Efficient-Large-Model/SANA-Video_2B_480p_diffusers": "sana-video-2b",
}
# How sources call devices, where the driver's product name does not tell.
DEVICES = {
    "A100": "a100-sxm",
    "A100 80GB": "a100-sxm",
    "A100 (80GB SXM per paper)": "a100-sxm",
    "H100 SXM 80GB HBM3": "h100-sxm",
    "A100 80GB SXM (400W)": "a100-sxm",
    "V100": "v100-sxm",
    "V100 (DGX-1, SXM2)": "v100-sxm",
    "H100 SXM": "h100-sxm",
    "H100 (NVLink)": "h100-sxm",
    "H100 (author BBuf; GPU not printed)": "h100-sxm",
    "H100 80GB": "h100-sxm",
    "H200 SXM": "h200-sxm",
    "A100 40GB": "a100-sxm-40gb",
    "A100 SXM 80GB": "a100-sxm",
    "A100 (NVLink)": "a100-sxm",
    "RTX PRO 6000": "rtx-pro-6000",
    "H20 (NVLink)": "h20",
    "rtx_pro_6000_server": "rtx-pro-6000",
}
DTYPES = {
    "bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "fp16_tc_fp32acc": "fp16",
    "c10::BFloat16": "bf16", "c10::Half": "fp16", "float": "fp32", "bf16": "bf16", "fp16": "fp16", "fp32": "fp32",
}  # fmt: skip


def device(name: str) -> str | None:
    """simtti's device for a source's name of it, None if there is none."""
    found = find_reported(name)
    return found.name if found else DEVICES.get(name)


def read_csv_or_parquet(path: Path) -> pd.DataFrame:
    """A file of the database: Parquet, or CSV under whatever name."""
    import pandas as pd

    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise InputError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull` in the clone")
    if path.suffix == ".parquet":
        return read_table(path)
    try:
        return pd.read_csv(path)
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not readable as CSV: {str(error).splitlines()[0]}") from None


def need(table: pd.DataFrame, origin: str, columns: tuple[str, ...]) -> None:
    for name in columns:
        if name not in table.columns:
            raise InputError(
                f"{origin}: column {name!r} is missing; it has {', '.join(map(str, table.columns))}"
            )
