"""Convolutions without tensor cores: which kernels, and those of ResNet-50 measured on a V100."""

from convolutions import A100, V100, conv, figures, names, warm_us

# ResNet-50 training in fp32 on a V100, forward (pytorch/kineto, BSD-3): channels, size, output channels, kernel, stride,
# padding, all the operator's kernels. 32 samples.
RESNET = [
    (3, 224, 64, 7, 2, 3, 606), (64, 56, 64, 1, 1, 0, 98), (64, 56, 64, 3, 1, 1, 352), (64, 56, 256, 1, 1, 0, 312),
    (256, 56, 64, 1, 1, 0, 274), (128, 56, 128, 3, 2, 1, 535), (128, 28, 512, 1, 1, 0, 378),
    (256, 56, 512, 1, 2, 0, 504), (512, 28, 128, 1, 1, 0, 364), (128, 28, 128, 3, 1, 1, 306),
    (256, 28, 256, 3, 2, 1, 642), (256, 14, 1024, 1, 1, 0, 355), (512, 28, 1024, 1, 2, 0, 720),
    (256, 14, 256, 3, 1, 1, 291), (512, 14, 512, 3, 2, 1, 896), (512, 7, 2048, 1, 1, 0, 383),
    (1024, 14, 2048, 1, 2, 0, 714), (2048, 7, 512, 1, 1, 0, 435), (512, 7, 512, 3, 1, 1, 310),
]  # fmt: skip


def test_fp32_without_tf32_reads_nchw_as_it_lies():
    kernels = conv(2, 320, (64, 64), 640, (1, 1), dtype="fp32", hardware=V100, bias=False)
    assert names(kernels) == ["scudnn"]
    kernels = conv(2, 3, (224, 224), 64, (7, 7), 2, 3, dtype="fp32", hardware=V100, bias=False)
    assert names(kernels) == ["scudnn"]
    done, useful = kernels[0].grid * kernels[0].fp32_flops, kernels[0].flops
    assert done < 3 * useful  # channels are not padded to a k step per tap


def test_fp32_winograd_does_fewer_products_where_it_can():
    kernels = conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp32", hardware=V100, bias=False)
    assert any("winograd" in kernel.name for kernel in kernels)
    multiplications = sum(kernel.grid * kernel.fp32_flops for kernel in kernels)
    assert multiplications < sum(kernel.flops for kernel in kernels)
    for other in (
        conv(32, 128, (28, 28), 128, (3, 3), 2, 1, dtype="fp32", hardware=V100, bias=False),
        conv(32, 128, (28, 28), 128, (5, 5), 1, 2, dtype="fp32", hardware=V100, bias=False),
        conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp32", hardware=A100, bias=False),
        conv(32, 128, (28, 28), 128, (3, 3), 1, 1, dtype="fp16", hardware=V100, bias=False),
    ):
        assert not any("winograd" in kernel.name for kernel in other)


def test_fp32_on_volta():
    predicted = [
        warm_us(conv(32, c, (size, size), oc, (k, k), s, p, dtype="fp32", hardware=V100, bias=False), V100)
        for c, size, oc, k, s, p, _ in RESNET
    ]
    error, bias = figures(predicted, [row[-1] for row in RESNET])
    assert error < 0.16
    assert abs(bias) < 0.05
