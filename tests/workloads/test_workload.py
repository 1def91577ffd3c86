"""A workload's options: what cannot be is said in one line."""

import pytest

from simtti.errors import InputError
from simtti.workloads import record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 500}, "height is 500; for sdxl it must be a positive multiple of 8, such as 496"),
        ({"width": 0}, "width is 0; .* positive multiple of 8, such as 8"),
        ({"width": -8}, "width is -8; .* positive multiple of 8"),
        ({"height": 512.0}, r"height is 512\.0; .* positive multiple of 8, such as 1024"),
        ({"batch": 0}, "batch is 0; it must be a whole number of at least 1"),
        ({"batch": True}, "batch is True; it must be a whole number of at least 1"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"steps": 1001}, "steps is 1001; the sampler of sdxl takes at most 1000"),
        (
            {"frames": 16},
            r"frames is 16, but sdxl \(text-to-image\) takes no frames; its options are height, width",
        ),
        ({"dtype": "int8"}, "dtype is 'int8'; sdxl takes fp16, bf16, fp32"),
        ({"guidance": -1}, "guidance is -1; it must be a number of at least 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
    ],
)
def test_options_that_cannot_be(options, message):
    for function in (record.record, record.workload_trace):
        with pytest.raises(InputError, match=message):
            function("sdxl", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wan2.1-1.3b", {"frames": 80}, "frames is 80; .* a multiple of 4 plus 1, such as 77 or 81"),
        ("cogvideox-2b", {"frames": 53}, "frames is 53; .* a multiple of 8 plus 1, such as 49 or 57"),
        ("hunyuan-video", {"frames": 2}, "frames is 2; .* a multiple of 4 plus 1, such as 1 or 5"),
        ("animatediff", {"frames": 33}, "frames is 33; animatediff takes at most 32"),
        ("svd", {"frames": 0}, "frames is 0; it must be a whole number of at least 1"),
        ("svd", {"height": 600}, "height is 600; for svd it must be a positive multiple of 64, such as 576"),
        ("flux-dev", {"width": 1000}, "width is 1000; .* positive multiple of 16, such as 992"),
        ("sana-1.6b", {"width": 1008}, "width is 1008; .* positive multiple of 32, such as 992"),
        ("sd3-medium", {"height": 4096}, "height is 4096; sd3-medium takes at most 3072"),
    ],
)
def test_shapes_that_cannot_be(name, options, message):
    with pytest.raises(InputError, match=message):
        record.workload_trace(name, **options)
