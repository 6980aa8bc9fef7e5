"""The order in which an epoch shows its studies: a function of seed and epoch, and of nothing that was before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.randomness import hash64, mix


class Order(NamedTuple):
    """rows: (n,) positions of studies. draw: (n,) tells apart the appearances of one study in the epoch."""

    rows: NDArray[np.int64]
    draw: NDArray[np.int64]


class Window(NamedTuple):
    """Where studies lie that are fetched shard by shard. shard: (n,) number of each study's; width: shards open at a time."""

    shard: NDArray[np.int64]
    width: int


def shuffled(n: int, seed: int, epoch: int) -> Order:
    """Every study once."""
    generator = np.random.default_rng([mix(seed, 0x5EED), epoch])
    return Order(generator.permutation(n).astype(np.int64), np.zeros(n, dtype=np.int64))


def balanced(groups: Sequence[str], seed: int, epoch: int, power: float = 0.5) -> Order:
    """As many studies as there are, rare groups more often than their share.

    A group of c studies gets a share proportional to c ** power: 1 = as it is, 0 = all groups alike. Each group is dealt
    round by round, so that over the epochs its studies are seen equally often, and spread evenly over the epoch, so
    that every batch is a mixture.

    Args:
        groups: (n,) name of every study's group.

    Raises:
        ValueError: `power` outside 0 to 1.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"balance_power is {power}, expected 0 (all groups alike) to 1 (as they are)")
    names = np.asarray(groups, dtype=object)
    members = {name: np.flatnonzero(names == name) for name in sorted(set(groups))}
    index, draw, place = [], [], []
    for (name, rows), quota in zip(members.items(), quotas([len(r) for r in members.values()], power), strict=True):
        stream = np.arange(epoch * quota, (epoch + 1) * quota)
        rounds, within = stream // len(rows), stream % len(rows)
        group = mix(seed, hash64(name))
        decks = {r: np.random.default_rng([group, int(r)]).permutation(rows) for r in np.unique(rounds)}
        index.append(np.array([decks[r][w] for r, w in zip(rounds, within, strict=True)], dtype=np.int64))
        draw.append(rounds.astype(np.int64))
        jitter = np.random.default_rng([group, 1, epoch]).random(quota)
        place.append((np.arange(quota) + jitter) / max(quota, 1))
    sequence = np.argsort(np.concatenate(place), kind="stable")
    return Order(np.concatenate(index)[sequence], np.concatenate(draw)[sequence])


def gathered(order: Order, window: Window, seed: int, epoch: int) -> Order:
    """The same appearances, so arranged that `width` shards are open at any time and none is opened twice.

    The shards take turns in an order of their own: shard r is open from slot r - width + 1 to slot r, and its studies are
    spread evenly over its slots, each group's as evenly as `order` has them. Every batch is a mixture of `width` shards; as
    many shards as the window is wide, or fewer, leave `order` as it is.

    Raises:
        ValueError: no width.
    """
    if window.width < 1:
        raise ValueError(f"the window is {window.width} shards wide; fix: 1 or more")
    names, shard = np.unique(window.shard, return_inverse=True)
    width = min(window.width, len(names))
    turns = np.random.default_rng([mix(seed, 0x5AAD), epoch]).permutation(len(names))
    turn = turns[shard][order.rows]
    first, last = np.maximum(turn - width + 1, 0), np.minimum(turn, len(names) - width)
    place = first + (last + 1 - first) * (np.arange(len(turn)) / max(len(turn), 1))
    sequence = np.argsort(place, kind="stable")
    return Order(order.rows[sequence], order.draw[sequence])


def quotas(counts: Sequence[int], power: float) -> list[int]:
    """Studies per epoch of every group; they sum to the number of studies (largest remainders), each at least 1."""
    total = sum(counts)
    weight = np.array(counts, dtype=np.float64) ** power
    exact = weight / weight.sum() * total
    quota = np.maximum(np.floor(exact).astype(int), 1)
    for group in np.argsort(-(exact - np.floor(exact)), kind="stable"):
        if quota.sum() >= total:
            break
        quota[group] += 1
    while quota.sum() > total:
        quota[int(quota.argmax())] -= 1
    return [int(q) for q in quota]
