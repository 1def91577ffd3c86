"""The catalogue: the released models' sizes, and what their modules take."""

import importlib
import pickle
import subprocess
import sys
from collections import defaultdict
from itertools import groupby

import pytest
from recorded_traces import NAMES

from simtti.errors import InputError
from simtti.workloads import catalogue, record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.workload import GROUPS

# As papers, model cards and checkpoints' sizes give them, to the digits they give.
PUBLISHED = {
    ("sdxl", "unet"): "2.57", ("sdxl", "text_encoder_2"): "0.695", ("ssd-1b", "unet"): "1.3",
    ("sd3-medium", "transformer"): "2.0", ("sd3-medium", "text_encoder_3"): "4.76",
    ("sd3.5-large", "transformer"): "8.1", ("kandinsky-2.2", "prior"): "1.0",
    ("kandinsky-2.2", "unet"): "1.25", ("kandinsky-2.2", "movq"): "0.068", ("kandinsky-2.2", "image_encoder"): "1.8",
    ("kandinsky-3", "unet"): "3.1", ("kandinsky-3", "text_encoder"): "8.7", ("kandinsky-3", "movq"): "0.27",
    ("pixart-sigma", "transformer"): "0.611", ("sana-1.6b", "transformer"): "1.6", ("sana-1.6b-4k", "transformer"): "1.6",
    ("sana-1.6b", "text_encoder"): "2.61", ("sana-1.6b", "vae"): "0.312", ("sana-4.8b", "transformer"): "4.7",
    ("hunyuan-dit", "transformer"): "1.5", ("hunyuan-dit", "text_encoder_2"): "1.67", ("flux-dev", "transformer"): "11.9",
    ("modelscope-t2v", "unet"): "1.41", ("animatediff", "unet"): "1.277", ("i2vgen-xl", "unet"): "1.42",
    ("svd", "unet"): "1.52", ("svd", "image_encoder"): "0.632", ("svd", "vae"): "0.098",
    ("cogvideox-2b", "transformer"): "1.69", ("cogvideox1.5-5b", "transformer"): "5.57",
    ("hunyuan-video", "transformer"): "12.8", ("hunyuan-video", "text_encoder"): "7.5",
    ("wan2.1-1.3b", "transformer"): "1.42", ("wan2.1-14b", "transformer"): "14.3",
    ("wan2.1-14b", "text_encoder"): "5.68", ("wan2.1-14b", "vae"): "0.127",
    ("flux-schnell", "transformer"): "11.9", ("flux.2-dev", "transformer"): "32.2", ("flux.2-dev", "text_encoder"): "24.0",
    ("flux.2-klein-4b", "transformer"): "3.9", ("flux.2-klein-4b", "text_encoder"): "4.0",
    ("flux.2-klein-9b", "transformer"): "9", ("flux.2-klein-9b", "text_encoder"): "8.2",
    ("z-image-turbo", "transformer"): "6.15", ("qwen-image", "transformer"): "20.4", ("qwen-image", "text_encoder"): "8.3",
    ("qwen-image-layered", "transformer"): "20.4",
    ("sana-sprint-1.6b", "transformer"): "1.6", ("sana-video-2b", "transformer"): "2",
    ("hunyuan-image-2.1", "transformer"): "17", ("hunyuan-video-1.5", "transformer"): "8.3",
    ("cogvideox-5b", "transformer"): "5.57", ("ltx-video", "transformer"): "1.9", ("mochi-1", "transformer"): "10.0",
    ("wan2.1-i2v-14b-480p", "transformer"): "16.4", ("wan2.2-t2v-a14b", "transformer_2"): "14.3",
    ("wan2.2-ti2v-5b", "transformer"): "5.0", ("wan2.2-ti2v-5b", "vae"): "0.70",
    ("cosmos-predict2-2b-text2image", "transformer"): "2.0", ("cosmos-predict2-14b-video2world", "transformer"): "14",
    ("hidream-i1-full", "transformer"): "17.1", ("hidream-i1-full", "text_encoder_4"): "8.03", ("ltx-2", "transformer"): "18.9",
    ("ltx-2", "text_encoder"): "12.2", ("janus-pro-7b", "janus"): "7.4", ("helios-14b", "transformer"): "14",
    # 33 B, and the sizes of its files: 61.7 GiB and 4.85 of 16 bits, 577 MiB of 32.
    ("minimax-h3", "transformer"): "33.1", ("minimax-h3", "vae"): "2.604", ("minimax-h3", "audio_vae"): "0.151",
    ("ernie-image", "transformer"): "8.0", ("ernie-image", "text_encoder"): "3.8",
    ("kandinsky-5-image-lite", "transformer"): "6.0", ("kandinsky-5-video-lite", "transformer"): "2.0",
    ("kandinsky-5-video-pro", "transformer"): "19", ("kandinsky-5-video-pro", "vae"): "0.25",
    ("qwen-image-2.1", "transformer"): "7", ("qwen-image-2.1", "text_encoder"): "8.77",
    # With its connectors the 22 B of its name.
    ("ltx-2.3", "transformer"): "19.0", ("ltx-2.3", "connectors"): "3.2",
    # 12.9 B by its model card.
    ("krea-2-turbo", "transformer"): "13", ("krea-2-turbo", "text_encoder"): "4.4",
}  # fmt: skip


@pytest.mark.parametrize(("name", "component"), PUBLISHED)
def test_the_catalogue_has_the_published_counts(name, component):
    published = PUBLISHED[name, component]
    digits = len(published.partition(".")[2])
    assert f"{WORKLOADS[name].parameters[component] / 1e9:.{digits}f}" == published


def test_stable_diffusion_3_5_medium_has_2_5_b_with_its_position_table():
    table = 384**2 * 24 * 64
    assert WORKLOADS["sd3.5-medium"].parameters["transformer"] + table == pytest.approx(2.47e9, rel=0.01)


def test_the_multiples_are_those_of_the_modules():
    """The VAE's factor, times a patch or what a UNet must halve; frames that the VAE makes of a latent frame."""
    from simtti.workloads.models import cogvideox, hunyuan_dit, pixart, sana, stable_diffusion
    from simtti.workloads.models import stable_diffusion_3 as sd3

    factor = 2 ** (len(stable_diffusion.VAE["block_out_channels"]) - 1)
    unit = {name: workload.size_multiple for name, workload in WORKLOADS.items()}
    limit = {name: workload.max_size for name, workload in WORKLOADS.items()}
    assert {unit[name] for name in NAMES if "unet" in WORKLOADS[name].parameters} == {factor, 8 * factor}
    assert unit["pixart-sigma"] == factor * pixart.TRANSFORMER["patch_size"]
    assert unit["hunyuan-dit"] == factor * hunyuan_dit.TRANSFORMER["patch_size"]
    assert unit["sana-1.6b"] == 2 ** (len(sana.DC_AE["decoder_block_types"]) - 1)
    for name, config in (
        ("sd3-medium", sd3.MEDIUM_3), ("sd3.5-medium", sd3.MEDIUM_3_5), ("sd3.5-large", sd3.LARGE_3_5),
    ):  # fmt: skip
        assert unit[name] == factor * config["patch_size"]
        assert limit[name] == unit[name] * config["pos_embed_max_size"]
    assert limit["cogvideox1.5-5b"] == factor * cogvideox.TRANSFORMER_1_5_5B["sample_height"]


def test_unknown_names():
    with pytest.raises(
        InputError, match="unknown workload 'stable-difusion'; did you mean 'stable-diffusion'"
    ):
        catalogue.find("stable-difusion")
    with pytest.raises(InputError, match="unknown option 'heigth'; did you mean 'height'"):
        record.workload_trace("sdxl", heigth=8)
    assert catalogue.find("stable-diffusion").name == "stable-diffusion-1.5"


def test_the_catalogue_needs_no_torch():
    code = (
        "import sys; from simtti.workloads import catalogue, record, recording, device_run, kineto, aten; "
        "print(len(catalogue.WORKLOADS), sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == f"{len(WORKLOADS)} []\n"


def test_a_workload_stands_beside_its_builder():
    files = defaultdict(list)
    for workload in WORKLOADS.values():
        files[workload.builder.__module__].append(workload)
    for name, workloads in files.items():
        assert tuple(workloads) == importlib.import_module(name).WORKLOADS
        assert len({(workload.group, workload.place) for workload in workloads}) == 1


def test_lists_are_in_order_of_group_and_place():
    places = [(GROUPS.index(workload.group), workload.place) for workload in WORKLOADS.values()]
    assert places == sorted(places)
    files = [workload.builder.__module__ for workload in WORKLOADS.values()]
    assert len(set(places)) == len(set(files)) == len(list(groupby(files)))
    assert next(iter(WORKLOADS)) == "stable-diffusion-1.5"


def test_records_can_be_sent_to_other_processes():
    assert pickle.loads(pickle.dumps(WORKLOADS["sdxl"])) == WORKLOADS["sdxl"]
