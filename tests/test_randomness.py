"""Keyed randomness: the same number on every machine, another for every purpose."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.randomness import draw_seed, hash64, mix, study_key


def test_the_numbers_are_those_of_every_other_process() -> None:
    assert hash64("study") == 554983214476688696 and hash64("subject") == 11741848779528553208
    assert mix(1, 2, 3) == 7510213797696614745
    assert study_key(0, 1, "study") == 5376853888539678259


def splitmix64(seed: int) -> int:
    """The first number of the generator of Steele, Lea and Flood, from its published reference."""
    mask = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix_is_splitmix64_of_one_number_and_chains_it_over_several() -> None:
    # 0xE220A8397B1DCDAF is the published first output for seed 0.
    assert splitmix64(0) == 0xE220A8397B1DCDAF and mix(0) == 0xE220A8397B1DCDAF >> 1
    assert mix(5, 7) == splitmix64(splitmix64(5) ^ 7) >> 1


def test_mix_is_a_seed_for_numpy_and_torch_and_knows_the_order() -> None:
    drawn = [mix(a, b) for a in range(-20, 20) for b in range(20)]
    assert len(set(drawn)) == len(drawn) and all(0 <= number < 2**63 for number in drawn)
    assert mix(-1) == mix(2**64 - 1), "whole numbers of 64 bits, signed or not"


def test_the_bits_of_mix_are_even() -> None:
    bits = np.array([[mix(3, number) >> bit & 1 for bit in range(63)] for number in range(2000)])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05


@pytest.mark.parametrize("other", [(1, 1, "a", 0), (0, 2, "a", 0), (0, 1, "b", 0), (0, 1, "a", 1)])
def test_a_study_key_knows_seed_epoch_study_and_appearance(other: tuple[int, int, str, int]) -> None:
    assert study_key(*other) != study_key(0, 1, "a")


def test_a_draw_belongs_to_key_name_and_view() -> None:
    seeds = [draw_seed(5, "ct"), draw_seed(5, "eeg"), draw_seed(6, "ct"), draw_seed(5, "ct", 1), draw_seed(5, "ct", 2)]
    assert len(set(seeds)) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert draw_seed(5, "ct", 0) == draw_seed(5, "ct")


def test_a_hash_knows_its_seed() -> None:
    assert hash64("a") == hash64("a", 0) != hash64("a", 1) != hash64("a", -1)
