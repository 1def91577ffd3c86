"""Colours: one for each thing, apart for everybody."""

import itertools
import math

import pytest

from simtti.pages.colours import PALETTE, THEME, named, variables
from simtti.simulator.closed_form import RESOURCES
from simtti.simulator.time_of_run import HOST_IDLE, LAUNCH_GAP
from simtti.words import BOUNDS
from simtti.workloads.trace import CATEGORIES

# Machado, Oliveira and Fernandes 2009, severity 1, of linear RGB: everybody; without green cones; without red ones.
VIEWS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
)
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)
LEAST = 10.0  # of CIE 1976's difference, of which 2.3 are just seen


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def lab(colour, view):
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    ]
    seen = [min(max(value, 0.0), 1.0) for value in times(view, linear)]
    x, y, z = (
        value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116
        for value in (each / white for each, white in zip(times(XYZ, seen), WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("ground", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS, ids=["all colours", "no green", "no red"])
def test_colours_are_apart_from_each_other_and_from_the_ground(ground, view):
    colours = [getattr(colour, ground) for colour in (*PALETTE, THEME["card"])]
    for one, other in itertools.combinations(colours, 2):
        assert math.dist(lab(one, view), lab(other, view)) >= LEAST, (one, other)


def test_every_category_and_every_limit_has_a_colour_of_its_own():
    for names in ((*CATEGORIES, HOST_IDLE, LAUNCH_GAP), (*RESOURCES, "latency", "launch", "host")):
        assert len({named(name) for name in names}) == len(names) < len(PALETTE)
    assert named("host") == named(HOST_IDLE)
    assert set(BOUNDS) >= {*RESOURCES, "latency", "launch", "host", HOST_IDLE, LAUNCH_GAP}


def test_a_light_colour_says_which_variable_it_is():
    light = [colour.light for colour in variables().values()]
    assert len(set(light)) == len(light)
