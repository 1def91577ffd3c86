"""The study's systems beside Stable Diffusion (Golden et al., ISPASS 2024), as entries for the catalogue.

Each model file says what is published and what is assumed; `parameters` are as counted from it.
"""

from simtti.workloads.workload import Options, Workload

_T5_XXL = 4_762_310_656
_CLIP_L = 123_060_480


STUDY: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="imagen",
            task="text-to-image",
            architecture="pixel diffusion UNet with super-resolution",
            defaults=Options(prompt_tokens=128, height=1024, width=1024, steps=100, guidance=7.0),
            parameters={
                "text_encoder": _T5_XXL,
                "unet": 2_254_931_971,
                "super_resolution_1": 652_569_859,
                "super_resolution_2": 440_696_067,
            },
            source="Saharia et al., 2022 (arXiv 2205.11487): T5-XXL 4.6 B, UNets of 2 B, 600 M and 400 M",
            url="https://imagen.research.google",
            builder="simtti.workloads.models.imagen:record_imagen",
            size_multiple=128,
        ),
        Workload(
            name="muse",
            task="text-to-image",
            architecture="parallel-decoding transformer",
            defaults=Options(prompt_tokens=128, height=512, width=512, steps=24, guidance=4.0),
            parameters={
                "text_encoder": _T5_XXL,
                "transformer": 3_264_288_768,
                "super_resolution": 772_279_296,
                "decoder": 162_078_979,
            },
            source="Chang et al., 2023 (arXiv 2301.00704): 3 B base transformer, T5-XXL",
            url="https://muse-model.github.io",
            builder="simtti.workloads.models.muse:record_muse",
            size_multiple=256,
            max_steps=256,
            sizes=(256, 512),
        ),
        Workload(
            name="parti",
            task="text-to-image",
            architecture="autoregressive transformer",
            defaults=Options(prompt_tokens=128, height=256, width=256, guidance=1.2),
            parameters={"text_encoder": 3_287_556_096, "transformer": 17_252_757_504, "decoder": 631_173_056},
            source="Yu et al., 2022 (arXiv 2206.10789): 20 B encoder-decoder, ViT-VQGAN decoder 600 M",
            url="https://sites.research.google/parti",
            builder="simtti.workloads.models.parti:record_parti",
            size_multiple=256,
            sizes=(256,),
        ),
        Workload(
            name="prod-image",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(prompt_tokens=77, height=1024, width=1024, steps=50, guidance=7.5),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": _T5_XXL,
                "text_projection": 9_965_568,
                "unet": 2_840_856_272,
                "vae": 83_819_683,
            },
            source="a stand-in of the class of Emu, Dai et al., 2023 (arXiv 2309.15807): UNet 2.8 B, 16 latent channels",
            url="https://arxiv.org/abs/2309.15807",
            builder="simtti.workloads.models.prod_image:record_prod_image",
        ),
        Workload(
            name="make-a-video",
            task="text-to-video",
            architecture="pixel video diffusion UNet with super-resolution",
            defaults=Options(height=768, width=768, steps=25, frames=76, guidance=4.0),
            parameters={
                "text_encoder": 123_650_304,
                "prior": 1_022_030_080,
                "decoder": 2_787_377_697,
                "interpolation": 2_787_396_129,
                "super_resolution_low": 907_223_713,
                "super_resolution_high": 282_059_139,
            },
            source="Singer et al., 2022 (arXiv 2209.14792); sizes assumed, unCLIP's: 9.7 B in all is cited by others",
            url="https://makeavideo.studio",
            builder="simtti.workloads.models.make_a_video:record_make_a_video",
            size_multiple=96,
            frame_multiple=5,
        ),
        Workload(
            name="phenaki",
            task="text-to-video",
            architecture="parallel-decoding transformer",
            defaults=Options(prompt_tokens=128, height=128, width=128, steps=48, frames=11, guidance=4.0),
            parameters={"text_encoder": _T5_XXL, "transformer": 1_848_940_544, "decoder": 29_807_168},
            source="Villegas et al., 2022 (arXiv 2210.02399): MaskGIT transformer 1.8 B, C-ViViT, T5-XXL",
            url="https://phenaki.video",
            builder="simtti.workloads.models.phenaki:record_phenaki",
            frame_multiple=2,
        ),
        Workload(
            name="llama2-7b",
            task="text-to-text",
            architecture="autoregressive transformer",
            defaults=Options(prompt_tokens=512, steps=128),
            parameters={"llama": 6_738_415_616},
            source="Touvron et al., 2023 (arXiv 2307.09288): 7 B; steps are new tokens, after a prompt of 512",
            url="https://huggingface.co/meta-llama/Llama-2-7b-hf",
            builder="simtti.workloads.models.llama2:record_7b",
            max_tokens=4096,
            max_steps=3584,
        ),
    )
}
