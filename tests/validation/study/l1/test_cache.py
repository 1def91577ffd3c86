"""The cache that sees addresses: against an exact simulation as plain as can be, and what must hold of any cache."""

import numpy as np
import pytest

from simtti.hw_configs.devices import load
from simtti.simulator.kernel import Kernel
from simtti.validation.study.l1 import access_pattern as pattern
from simtti.validation.study.l1.cache import LINE_BYTES, SECTORS, Cache, l1_bytes, set_of


def exact_hits(sectors, capacity_bytes, sets):
    """Lists of lines in order of use, searched from end to end."""
    ways = capacity_bytes // LINE_BYTES // sets
    held = [[] for _ in range(sets)]  # of (line, its sectors), the last used last
    hits = 0
    for sector in sectors:
        line = sector // SECTORS
        lines = held[int(set_of(np.array([line]), sets)[0])]
        found = [entry for entry in lines if entry[0] == line]
        entry = found[0] if found else (line, [])
        if found:
            lines.remove(entry)
        hits += sector in entry[1]
        entry[1].append(sector)
        lines.append(entry)
        if len(lines) > ways:
            lines.pop(0)
    return hits


@pytest.mark.parametrize("sets", [1, 4])
@pytest.mark.parametrize("lines", [4, 16, 64, 256])
def test_hits_are_those_of_an_exact_simulation(lines, sets):
    generator = np.random.default_rng(1)
    sectors = np.concatenate(
        [generator.integers(0, 400, 1500), np.arange(300), np.arange(0, 4096, 32), np.arange(300)]
    )
    found = Cache(lines * LINE_BYTES, sets).read(sectors)
    assert found == (len(sectors), exact_hits(sectors.tolist(), lines * LINE_BYTES, sets))
    assert found.hits or lines == 4


def test_a_larger_cache_never_hits_less():
    """Least recently used keeps what a smaller one keeps, set by set."""
    sectors = np.random.default_rng(2).zipf(1.3, 8000) % 5000
    rates = [Cache(ways * 4 * LINE_BYTES).read(sectors).rate for ways in (0, 1, 2, 4, 8, 16, 64, 256)]
    assert rates == sorted(rates)
    assert rates[0] == 0 < rates[-1] < 1


def test_streaming_has_no_reuse():
    assert Cache(1 << 16).read(np.arange(20_000)).hits == 0


def test_what_fits_is_found_again_and_what_does_not_is_not():
    """A loop over a little less than the capacity hits, over more it never does: least recently used."""
    capacity = 64 * LINE_BYTES
    fits, outgrows = (np.tile(np.arange(lines * SECTORS), 3) for lines in (64, 65))
    assert Cache(capacity, sets=1).read(fits).rate == pytest.approx(2 / 3)
    assert Cache(capacity, sets=1).read(outgrows).hits == 0


def test_a_stride_wastes_the_lines():
    """Elements 4 KiB apart fill a line each: as many lines as elements, whatever the stride, and no set overflows alone."""
    capacity = 256 * LINE_BYTES
    for stride in (4096, 1 << 16, 1 << 21, 3 * 4096):
        element = np.arange(128) * stride // 32
        dense = np.arange(128) * 2 // 32
        assert Cache(capacity).read(np.tile(element, 2)).rate == pytest.approx(0.5, abs=0.02)
        outgrown = np.tile(np.arange(512) * stride // 32, 2)
        assert Cache(capacity).read(outgrown).rate < 0.1
        assert Cache(capacity).read(np.tile(dense, 2)).rate > 0.9


# ---- patterns


def test_a_block_is_read_once_whichever_way_it_lies():
    dense = pattern.matrices((2, 64, 32), (64 * 32, 32, 1), 2)
    block = pattern.block_reads(dense, 1, 16, 16, 0, 32)
    assert block.tolist() == list(range(2 * (64 + 16), 2 * (64 + 32)))
    turned = pattern.matrices((2, 32, 64), (64 * 32, 1, 32), 2)
    assert sorted(pattern.block_reads(turned, 1, 0, 32, 16, 16)) == block.tolist()


def test_elements_apart_take_a_sector_each():
    """Neither dimension dense: a sector an element, and a sector holds sixteen pixels' elements, of which one is used."""
    apart = pattern.matrices((16, 64), (64 * 1024, 1024), 2)
    found = pattern.block_reads(apart, 0, 0, 16, 0, 64)
    assert len(found) == len(set(found.tolist())) == 16 * 64


def test_a_ragged_block_stays_within_the_matrix():
    ragged = pattern.matrices((1, 10, 40), (400, 40, 1), 2)
    found = pattern.block_reads(ragged, 0, 8, 128, 32, 64)
    assert set(found.tolist()) == {
        (8 * 80 + 64) // 32,
        (8 * 80 + 79) // 32,
        (9 * 80 + 64) // 32,
        (9 * 80 + 79) // 32,
    }
    assert not len(pattern.block_reads(ragged, 0, 16, 16, 0, 64))


def test_a_gemms_ctas_share_rows_and_columns():
    a = pattern.matrices((4, 256, 64), (256 * 64, 64, 1), 2)
    b = pattern.matrices((4, 64, 256), (256 * 64, 1, 64), 2, base=pattern.OPERAND_GAP)
    tile = (128, 128, 32)

    def read(cta):
        return set(np.concatenate(pattern.gemm_cta(a, b, tile, cta)).tolist())

    assert len(read(0)) == 2 * 128 * 64 * 2 // 32
    assert len(read(0) & read(1)) == len(read(0)) // 2, "the same columns of B"
    assert len(read(0) & read(2)) == len(read(0)) // 2, "the same rows of A"
    assert not read(0) & read(3)
    assert not read(0) & read(4), "another matrix"


def test_softmax_reads_long_rows_three_times_and_short_ones_once():
    long = pattern.softmax_cta("cunn_SoftMaxForward", 8, 4096, 2, 1, 3)
    assert len(long) == 3
    assert len(long[0]) == 4096 * 2 // 32
    short = np.concatenate(pattern.softmax_cta("softmax_warp_forward", 64, 16, 2, 16, 1))
    assert sorted(short.tolist()) == list(range(16, 32)), "16 rows of one sector"
    ragged = np.concatenate(pattern.softmax_cta("softmax_warp_forward", 64, 77, 2, 8, 0))
    assert len(ragged) > len(set(ragged.tolist())) == -(-8 * 154 // 32), "rows that share a sector"


def test_an_elementwise_walk_follows_the_strides():
    dense = pattern.elementwise_cta((64, 64), (64, 1), 2, 128, 4, 0)
    assert np.concatenate(dense).tolist() == list(range(512 * 2 // 32))
    across = pattern.elementwise_cta((64, 64), (1, 64), 2, 128, 4, 0)
    assert len(np.concatenate(across)) == 512, "a sector an element"


def test_every_cta_is_placed_once():
    placed = pattern.place(1000, 2, 108, 9)
    numbers = [cta for sm in placed for wave in sm for cta in wave]
    assert sorted(numbers) == list(range(1000))
    assert max(len(wave) for sm in placed for wave in sm) == 2


def test_l1_is_what_shared_memory_leaves():
    hardware = load("a100-sxm")
    plain = Kernel("k", "elementwise", 1000, threads=1024, registers=32)
    tiled = Kernel("k", "gemm", 1000, threads=128, registers=128, shared_memory_bytes=65536)
    assert l1_bytes(plain, hardware) == hardware.l1_per_sm_bytes - 2 * 1024
    assert l1_bytes(tiled, hardware) == hardware.l1_per_sm_bytes - 2 * (65536 + 1024)


def test_ctas_that_share_a_row_hit_and_ctas_that_do_not_do_not():
    """Spatial scores: tiles of one matrix share operands. Temporal scores: a matrix a CTA, and nothing is shared."""
    hardware = load("a100-sxm")
    spatial = [
        pattern.matrices((8, 4096, 64), (4096 * 64, 64, 1), 2, base=at) for at in (0, pattern.OPERAND_GAP)
    ]
    temporal = [
        pattern.matrices((4096, 16, 64), (16 * 64, 64, 1), 2, base=at) for at in (0, pattern.OPERAND_GAP)
    ]
    rates = []
    for (q, k), tile in ((spatial, (128, 128, 32)), (temporal, (32, 32, 32))):
        kernel = Kernel(
            "scores",
            "attention",
            -(-q.rows // tile[0]) * -(-k.transposed.columns // tile[1]) * q.number,
            registers=200,
            shared_memory_bytes=32768,
        )
        found = pattern.l1_hits(
            kernel, hardware, lambda cta, q=q, k=k, tile=tile: pattern.gemm_cta(q, k.transposed, tile, cta)
        )
        rates.append(found.rate)
    assert rates[0] > 0.02
    assert rates[1] == 0
