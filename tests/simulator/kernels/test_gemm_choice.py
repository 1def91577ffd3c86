"""The choice among a product's kernels: the least of all that there are, for a column of products as for each alone."""

import itertools
import math
import random

import numpy as np
import pytest

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.kernels.gemm_bounds import SPLITS
from simtti.simulator.kernels.gemm_choice import Choice, choose, result_bytes
from simtti.simulator.kernels.gemm_column import choices
from simtti.simulator.kernels.gemm_estimate import Product, Traffic, estimate_s, rates_of
from simtti.simulator.kernels.gemm_tiles import LARGEST_TILE, for_products, kernels_for

H100 = load("h100-sxm")
DEVICES = {
    "nvjet": (with_pytorch(H100, "2.11"), "bf16"),
    "xmma": (with_pytorch(H100, "2.6"), "fp16"),
    "mma": (load("a100-sxm"), "fp16"),
    "CUDA cores": (for_products(load("a100-sxm"), False), "fp32"),
    "L2 that loses by a power": (load("l40s"), "fp8"),
    "tcgen05": (load("b200-sxm"), "bf16"),
}


def products(dtype, count, seed):
    """Of all sizes, often squares, rows of whole 16 bytes, or large."""
    draw, size = random.Random(seed), ITEM_BYTES[dtype]

    def side():
        kind = draw.random()
        return (
            draw.randint(1, 64)
            if kind < 0.2
            else draw.randint(1, 5000)
            if kind < 0.5
            else 8 * draw.randint(1, 2048)
        )

    for _ in range(count):
        m, n, k, batch = side(), side(), side(), draw.choice((1, 1, 1, 2, 16, 320))
        n = draw.choice((n, n, n, m))
        amounts = (batch * m * k * size, batch * n * k * size, batch * m * n * result_bytes(dtype))
        yield m, n, k, batch, Traffic(*map(float, amounts))


@pytest.mark.parametrize("name", DEVICES)
def test_products_side_by_side_get_the_plans_that_each_gets_alone(name):
    hardware, dtype = DEVICES[name]
    asked = list(products(dtype, 200, 1))
    columns = np.array([(*sizes, *traffic) for *sizes, traffic in asked], dtype=float).T
    together = {}
    for where, kernels, plans in choices(*columns[:4], dtype, Traffic(*columns[4:]), hardware):
        for at, time_s, number, split in zip(where, *plans, strict=True):
            together[int(at)] = (time_s, None if number < 0 else kernels.fits[number], split)
    assert [together[at] for at in range(len(asked))] == [
        choose(Choice(*sizes, dtype, traffic, hardware)) for *sizes, traffic in asked
    ]


def every_way(m, n, k, batch, dtype, traffic, hardware):
    """(what it counts for, what it takes, the tile, slices) of each kernel that the library considers, one after another by the estimate."""
    kernels, rates = kernels_for(n, k, batch, ITEM_BYTES[dtype], dtype, hardware), rates_of(hardware)
    product = Product(m, n, k, batch, ITEM_BYTES[dtype], result_bytes(dtype))
    style, sms = kernels.style, rates.sms

    def reads(tile_m, tile_n):
        return 1 / min(tile_m, m) + 1 / min(tile_n, n)

    fewest = min(reads(*LARGEST_TILE), reads(*LARGEST_TILE[::-1]))

    def cut(fit):
        return -(-m // fit.tile.m), -(-n // fit.tile.n)

    areas = [math.prod(cut(fit)) * fit.tile.m * fit.tile.n for fit in kernels.fits]
    padded = batch > 1 and min(m, n) < 64 and kernels.fits[0].tile.in_clusters and batch > sms
    for fit, area in zip(kernels.fits, areas, strict=True):
        if area > min(areas) * (1 if padded else style.most_padding):
            continue
        down, across = cut(fit)
        tiles = down * across * batch
        most = min(rates.most_split_waves * fit.slots // tiles, k // fit.least_slice, rates.most_splits)
        filling = (sms // tiles, fit.slots // tiles, 2 * fit.slots // tiles, most)
        for split in {1, *(each for each in (*SPLITS, *filling) if 2 <= each <= most)}:
            partial_bytes = 4.0 * product.elements * split if split > 1 else 0.0
            moved = traffic.repeated(rates_of(hardware), partial_bytes)
            time_s = estimate_s(fit, style, product, split, rates, *moved)
            least_s = rates.start_s + style.setup_cycles / rates.clock_hz
            least_s += rates.start_s + rates.reduction_latency_s if split > 1 else 0.0
            lost = max((down / m + across / n) / fewest - 1.0, 0.0) if tiles * split > sms else 0.0
            yield (1 + style.reuse_preference * lost) * (time_s - least_s) + least_s, time_s, fit, split


@pytest.mark.parametrize("name", DEVICES)
def test_it_is_the_least_of_all_ways(name):
    hardware, dtype = DEVICES[name]
    split = 0
    for m, n, k, batch, traffic in itertools.islice(products(dtype, 60, 2), 60):
        plan = choose(Choice(m, n, k, batch, dtype, traffic, hardware))
        if plan.fit is None:
            continue
        ways = list(every_way(m, n, k, batch, dtype, traffic, hardware))
        least_s = min(ways, key=lambda way: way[0])[0]
        ((counted_s, time_s),) = [way[:2] for way in ways if way[2:] == plan[1:]]
        assert counted_s == pytest.approx(least_s, rel=1e-12)
        assert time_s == plan.time_s, "one product's estimate is that of a column, to the last bit"
        split += plan.split > 1
    assert split > 3
