"""What workloads there are: today's models here, the study's systems in `catalogue_study`."""

from simtti.errors import unknown
from simtti.workloads.catalogue_study import STUDY
from simtti.workloads.workload import DTYPES, Options, Workload

__all__ = ["ALIASES", "DTYPES", "WORKLOADS", "Options", "Workload", "find"]


def find(name: str) -> Workload:
    """The workload of that name or alias."""
    name = ALIASES.get(name, name)
    if name not in WORKLOADS:
        raise unknown("workload", name, [*WORKLOADS, *ALIASES])
    return WORKLOADS[name]


_VAE = 83_653_863
_VAE_16 = 83_819_683
_CLIP_L = 123_060_480
_CLIP_L_PROJECTED = 123_650_304
_OPENCLIP_H = 340_387_840
_OPENCLIP_H_VISION = 632_076_800
_OPENCLIP_BIGG = 694_659_840
_T5_XXL = 4_762_310_656
_UMT5_XXL = 5_680_910_336
_GEMMA_2_2B = 2_614_341_888

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="stable-diffusion-1.5",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=512, width=512, steps=50, guidance=7.5),
            parameters={"text_encoder": _CLIP_L, "unet": 859_520_964, "vae": _VAE},
            source="Rombach et al., CVPR 2022, and the model card: 860 M UNet, 123 M text encoder (CLIP ViT-L/14)",
            url="https://github.com/CompVis/stable-diffusion",
            builder="simtti.workloads.models.stable_diffusion:record_1_5",
        ),
        Workload(
            name="stable-diffusion-2.1",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=768, width=768, steps=50, guidance=7.5),
            parameters={"text_encoder": _OPENCLIP_H, "unet": 865_910_724, "vae": _VAE},
            source="Stability AI's v2-inference-v configuration: 866 M UNet, OpenCLIP ViT-H text encoder (23 of 24 layers)",
            url="https://github.com/Stability-AI/stablediffusion",
            builder="simtti.workloads.models.stable_diffusion:record_2_1",
        ),
        Workload(
            name="sdxl",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": _OPENCLIP_BIGG,
                "unet": 2_567_463_684,
                "vae": _VAE,
            },
            source="Podell et al., 2023, table 1: 2.6 B UNet, text encoders CLIP ViT-L and OpenCLIP ViT-bigG of 817 M",
            url="https://arxiv.org/abs/2307.01952",
            builder="simtti.workloads.models.sdxl:record_sdxl",
        ),
        Workload(
            name="sdxl-turbo",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=512, width=512, steps=1, guidance=5.0),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": _OPENCLIP_BIGG,
                "unet": 2_567_463_684,
                "vae": _VAE,
            },
            source="Sauer et al., 2023: SDXL's networks, distilled to 1-4 steps; guided unless asked otherwise, as the pipeline is",
            url="https://huggingface.co/stabilityai/sdxl-turbo",
            builder="simtti.workloads.models.sdxl:record_turbo",
        ),
        Workload(
            name="ssd-1b",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": _OPENCLIP_BIGG,
                "unet": 1_331_334_404,
                "vae": _VAE,
            },
            source="Gupta et al., 2024 (arXiv 2401.02677) and the released configuration: 1.3 B UNet",
            url="https://huggingface.co/segmind/SSD-1B",
            builder="simtti.workloads.models.sdxl:record_ssd_1b",
        ),
        Workload(
            name="sd3-medium",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=28, guidance=7.0),
            parameters={
                "text_encoder": _CLIP_L_PROJECTED,
                "text_encoder_2": _OPENCLIP_BIGG,
                "text_encoder_3": _T5_XXL,
                "transformer": 2_028_328_000,
                "vae": _VAE_16,
            },
            source="Esser et al., 2024: 2 B MMDiT, depth 24; three text encoders",
            url="https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers",
            builder="simtti.workloads.models.stable_diffusion_3:record_medium_3",
            size_multiple=16,
            max_size=3072,
        ),
        Workload(
            name="sd3.5-medium",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=28, guidance=7.0, dtype="bf16"),
            parameters={
                "text_encoder": _CLIP_L_PROJECTED,
                "text_encoder_2": _OPENCLIP_BIGG,
                "text_encoder_3": _T5_XXL,
                "transformer": 2_243_171_520,
                "vae": _VAE_16,
            },
            source="Stability AI's release: 2.5 B MMDiT-X, of which 0.2 B are a fixed position table",
            url="https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
            builder="simtti.workloads.models.stable_diffusion_3:record_medium_3_5",
            size_multiple=16,
            max_size=6144,
        ),
        Workload(
            name="sd3.5-large",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=28, guidance=7.0, dtype="bf16"),
            parameters={
                "text_encoder": _CLIP_L_PROJECTED,
                "text_encoder_2": _OPENCLIP_BIGG,
                "text_encoder_3": _T5_XXL,
                "transformer": 8_056_627_520,
                "vae": _VAE_16,
            },
            source="Stability AI's release: 8.1 B MMDiT, depth 38",
            url="https://huggingface.co/stabilityai/stable-diffusion-3.5-large",
            builder="simtti.workloads.models.stable_diffusion_3:record_large_3_5",
            size_multiple=16,
            max_size=3072,
        ),
        Workload(
            name="kandinsky-2.2",
            task="text-to-image",
            architecture="latent diffusion UNet with a diffusion prior",
            defaults=Options(height=512, width=512, steps=100, guidance=4.0),
            parameters={
                "text_encoder": _OPENCLIP_BIGG,
                "image_encoder": 1_844_907_264,
                "prior": 1_026_225_920,
                "unet": 1_253_057_288,
                "movq": 67_832_495,
            },
            source="Razzhigaev et al., 2023 (arXiv 2310.03502): prior 1 B, UNet 1.2 B, MoVQ 67 M, CLIP ViT-bigG",
            url="https://huggingface.co/kandinsky-community/kandinsky-2-2-decoder",
            builder="simtti.workloads.models.kandinsky:record_2_2",
            size_multiple=64,
        ),
        Workload(
            name="kandinsky-3",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=1024, width=1024, steps=25, guidance=3.0),
            parameters={
                "text_encoder": 8_721_797_632,
                "unet": 3_055_348_228,
                "movq": 270_669_103,
            },
            source="Arkhipkin et al., 2023 (arXiv 2312.03511): UNet 3.0 B, FLAN-UL2 encoder 8.6 B, MoVQ 0.27 B",
            url="https://huggingface.co/kandinsky-community/kandinsky-3",
            builder="simtti.workloads.models.kandinsky:record_3",
            size_multiple=64,
        ),
        Workload(
            name="pixart-sigma",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
            parameters={
                "text_encoder": _T5_XXL,
                "transformer": 610_856_096,
                "vae": _VAE,
            },
            source="Chen et al., 2024 (arXiv 2403.04692): 0.6 B DiT, T5-XXL",
            url="https://huggingface.co/PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            builder="simtti.workloads.models.pixart:record_sigma",
            size_multiple=16,
        ),
        Workload(
            name="sana-1.6b",
            task="text-to-image",
            architecture="latent diffusion transformer (linear attention)",
            defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
            parameters={
                "text_encoder": _GEMMA_2_2B,
                "transformer": 1_604_641_952,
                "vae": 312_250_275,
            },
            source="Xie et al., 2025 (arXiv 2501.18427), SANA 1.5: 1.6 B DiT, Gemma-2-2B, DC-AE factor 32",
            url="https://huggingface.co/Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
            builder="simtti.workloads.models.sana:record_1_6b",
            size_multiple=32,
        ),
        Workload(
            name="sana-4.8b",
            task="text-to-image",
            architecture="latent diffusion transformer (linear attention)",
            defaults=Options(height=1024, width=1024, steps=20, guidance=4.5, dtype="bf16"),
            parameters={
                "text_encoder": _GEMMA_2_2B,
                "transformer": 4_721_825_952,
                "vae": 312_250_275,
            },
            source="Xie et al., 2025 (arXiv 2501.18427), SANA 1.5: 4.8 B DiT (60 blocks; 4.7 B as counted)",
            url="https://huggingface.co/Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
            builder="simtti.workloads.models.sana:record_4_8b",
            size_multiple=32,
        ),
        Workload(
            name="hunyuan-dit",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
            parameters={
                "text_encoder": 352_035_840,
                "text_encoder_2": 1_669_958_656,
                "transformer": 1_499_952_032,
                "vae": _VAE,
            },
            source="Li et al., 2024 (arXiv 2405.08748): 1.5 B DiT, Chinese CLIP 350 M, mT5-XL encoder 1.6 B",
            url="https://huggingface.co/Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
            builder="simtti.workloads.models.hunyuan_dit:record_1_2",
            size_multiple=16,
        ),
        Workload(
            name="flux-dev",
            task="text-to-image",
            architecture="latent diffusion transformer",
            defaults=Options(height=1024, width=1024, steps=28, guidance=3.5, dtype="bf16"),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": _T5_XXL,
                "transformer": 11_901_408_320,
                "vae": _VAE_16,
            },
            source="Black Forest Labs' release: 12 B rectified-flow transformer, guidance-distilled",
            url="https://huggingface.co/black-forest-labs/FLUX.1-dev",
            builder="simtti.workloads.models.flux:record_dev",
            size_multiple=16,
        ),
        Workload(
            name="modelscope-t2v",
            task="text-to-video",
            architecture="latent video diffusion UNet",
            defaults=Options(height=256, width=256, steps=50, frames=16, guidance=9.0),
            parameters={
                "text_encoder": _OPENCLIP_H,
                "unet": 1_411_233_860,
                "vae": _VAE,
            },
            source="Wang et al., 2023 (arXiv 2308.06571): 1.7 B in all, UNet 1.4 B",
            url="https://huggingface.co/ali-vilab/text-to-video-ms-1.7b",
            builder="simtti.workloads.models.modelscope:record_t2v",
        ),
        Workload(
            name="animatediff",
            task="text-to-video",
            architecture="latent video diffusion UNet",
            defaults=Options(height=512, width=512, steps=50, frames=16, guidance=7.5),
            parameters={
                "text_encoder": _CLIP_L,
                "unet": 1_276_658_564,
                "vae": _VAE,
            },
            source="Guo et al., 2023 (arXiv 2307.04725), motion modules v3: 417 M on Stable Diffusion 1.5's 860 M",
            url="https://huggingface.co/guoyww/animatediff-motion-adapter-v1-5-3",
            builder="simtti.workloads.models.animatediff:record_animatediff",
            max_frames=32,
        ),
        Workload(
            name="i2vgen-xl",
            task="image-to-video",
            architecture="latent video diffusion UNet",
            defaults=Options(height=704, width=1280, steps=50, frames=16, guidance=9.0),
            parameters={
                "text_encoder": _OPENCLIP_H,
                "image_encoder": _OPENCLIP_H_VISION,
                "unet": 1_420_469_224,
                "vae": _VAE,
            },
            source="Zhang et al., 2023 (arXiv 2311.04145) and the released configuration: UNet 1.4 B",
            url="https://huggingface.co/ali-vilab/i2vgen-xl",
            builder="simtti.workloads.models.i2vgen_xl:record_i2vgen_xl",
        ),
        Workload(
            name="svd",
            task="image-to-video",
            architecture="latent video diffusion UNet",
            defaults=Options(height=576, width=1024, steps=25, frames=14, guidance=3.0),
            parameters={
                "image_encoder": _OPENCLIP_H_VISION,
                "unet": 1_524_623_082,
                "vae": 97_742_847,
            },
            source="Blattmann et al., 2023 (arXiv 2311.15127): UNet 1.5 B, decoder with temporal layers",
            url="https://huggingface.co/stabilityai/stable-video-diffusion-img2vid",
            builder="simtti.workloads.models.svd:record_svd",
            size_multiple=64,
        ),
        Workload(
            name="svd-xt",
            task="image-to-video",
            architecture="latent video diffusion UNet",
            defaults=Options(height=576, width=1024, steps=25, frames=25, guidance=3.0),
            parameters={
                "image_encoder": _OPENCLIP_H_VISION,
                "unet": 1_524_623_082,
                "vae": 97_742_847,
            },
            source="Blattmann et al., 2023 (arXiv 2311.15127): svd, fine-tuned on 25 frames",
            url="https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt",
            builder="simtti.workloads.models.svd:record_svd",
            size_multiple=64,
        ),
        Workload(
            name="cogvideox-2b",
            task="text-to-video",
            architecture="latent video diffusion transformer",
            defaults=Options(height=480, width=720, steps=50, frames=49, dtype="bf16", guidance=6.0),
            parameters={
                "text_encoder": _T5_XXL,
                "transformer": 1_693_783_872,
                "vae": 215_583_907,
            },
            source="Yang et al., 2024 (arXiv 2408.06072) and the released configuration: 1.7 B expert transformer, T5-XXL",
            url="https://huggingface.co/zai-org/CogVideoX-2b",
            builder="simtti.workloads.models.cogvideox:record_2b",
            size_multiple=16,
            frame_multiple=8,
        ),
        Workload(
            name="cogvideox1.5-5b",
            task="text-to-video",
            architecture="latent video diffusion transformer",
            defaults=Options(height=768, width=1360, steps=50, frames=81, dtype="bf16", guidance=6.0),
            parameters={
                "text_encoder": _T5_XXL,
                "transformer": 5_570_676_352,
                "vae": 215_583_907,
            },
            source="Yang et al., 2024 (arXiv 2408.06072) and the released configuration: 5.6 B expert transformer, T5-XXL",
            url="https://huggingface.co/zai-org/CogVideoX1.5-5B",
            builder="simtti.workloads.models.cogvideox:record_1_5_5b",
            size_multiple=16,
            max_size=2400,
            frame_multiple=8,
        ),
        Workload(
            name="hunyuan-video",
            task="text-to-video",
            architecture="latent video diffusion transformer",
            defaults=Options(height=720, width=1280, steps=50, frames=129, dtype="bf16", guidance=6.0),
            parameters={
                "text_encoder": 7_505_186_816,
                "text_encoder_2": _CLIP_L,
                "transformer": 12_821_012_544,
                "vae": 246_478_803,
            },
            source="Kong et al., 2024 (arXiv 2412.03603): 13 B transformer, Llama-3-8B and CLIP ViT-L",
            url="https://huggingface.co/tencent/HunyuanVideo",
            builder="simtti.workloads.models.hunyuan_video:record_hunyuan_video",
            size_multiple=16,
            frame_multiple=4,
        ),
        Workload(
            name="wan2.1-1.3b",
            task="text-to-video",
            architecture="latent video diffusion transformer",
            defaults=Options(height=480, width=832, steps=50, frames=81, dtype="bf16", guidance=5.0),
            parameters={
                "text_encoder": _UMT5_XXL,
                "transformer": 1_418_996_800,
                "vae": 126_892_531,
            },
            source="Wan team, 2025 (arXiv 2503.20314): 30 blocks of 12 heads (1.4 B as counted), UMT5-XXL",
            url="https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            builder="simtti.workloads.models.wan:record_1_3b",
            size_multiple=16,
            frame_multiple=4,
        ),
        Workload(
            name="wan2.1-14b",
            task="text-to-video",
            architecture="latent video diffusion transformer",
            defaults=Options(height=480, width=832, steps=50, frames=81, dtype="bf16", guidance=5.0),
            parameters={
                "text_encoder": _UMT5_XXL,
                "transformer": 14_288_491_584,
                "vae": 126_892_531,
            },
            source="Wan team, 2025 (arXiv 2503.20314): 14 B, 40 blocks of 40 heads, UMT5-XXL",
            url="https://huggingface.co/Wan-AI/Wan2.1-T2V-14B-Diffusers",
            builder="simtti.workloads.models.wan:record_14b",
            size_multiple=16,
            frame_multiple=4,
        ),
    )
}
WORKLOADS |= STUDY
ALIASES = {"stable-diffusion": "stable-diffusion-1.5"}
