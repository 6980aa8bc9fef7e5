"""Transformer pieces of one study in plain numpy, from the weights of ours: what the token operators are checked against."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, softmax
from torch import nn

from tests.fusion.studies import numbers

Array = np.ndarray


def linear(layer: nn.Linear, x: Array) -> Array:
    out = x @ numbers(layer.weight).T
    return out if layer.bias is None else out + numbers(layer.bias)


def norm(layer: nn.LayerNorm, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * numbers(layer.weight) + numbers(layer.bias)


def mlp(layers: nn.Sequential, x: Array) -> Array:
    hidden = linear(layers[0], x)
    return linear(layers[3], hidden * (1 + erf(hidden / np.sqrt(2))) / 2)


def heads_of(query: Array, key: Array, value: Array, heads: int) -> Array:
    """(N, D) attention of N queries to K keys, head by head."""
    width = query.shape[1] // heads
    out = np.zeros_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for row, q in enumerate(query[:, part]):
            out[row, part] = softmax(key[:, part] @ q / np.sqrt(width)) @ value[:, part]
    return out


def self_attention(layer: nn.Module, x: Array) -> Array:
    query, key, value = np.split(linear(layer.qkv, x), 3, axis=1)
    return linear(layer.out, heads_of(query, key, value, layer.heads))


def cross_attention(layer: nn.Module, x: Array, context: Array) -> Array:
    key, value = np.split(linear(layer.key_value, context), 2, axis=1)
    return linear(layer.out, heads_of(linear(layer.query, x), key, value, layer.heads))


def block(layer: nn.Module, x: Array) -> Array:
    x = x + self_attention(layer.attention, norm(layer.norm1, x))
    return x + mlp(layer.mlp, norm(layer.norm2, x))


def cross_block(layer: nn.Module, x: Array, context: Array) -> Array:
    x = x + cross_attention(layer.attention, norm(layer.norm_query, x), norm(layer.norm_context, context))
    return x + mlp(layer.mlp, norm(layer.norm, x))


def transformer(layers: nn.Module, x: Array) -> Array:
    for layer in layers.blocks:
        x = block(layer, x)
    return norm(layers.norm, x)
