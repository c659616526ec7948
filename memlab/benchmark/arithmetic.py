"""The limit of all contenders: the products, and of a step the encodings, without which it cannot be done."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.benchmark.material import Call, Material

TILE = 4096
"""Keys that the arithmetic alone takes at a time: their products with some hundred queries stay in a cache."""


def _multiplied(query: Tensor, keys: Tensor) -> None:
    columns = query.mT.contiguous()
    scores = columns.new_empty(min(TILE, len(keys)), columns.shape[1])
    for part in keys.split(TILE):
        torch.mm(part, columns, out=scores[: len(part)])


def products(material: Material) -> Call:
    """Each query with each key, once."""
    return lambda: _multiplied(material.query, material.keys)


def search_products(material: Material) -> Call:
    """The same of keys in clusters."""
    keys, query = material.clustered
    return lambda: _multiplied(query, keys)


def four_products(material: Material) -> Call:
    """Forward; and backward the scores once more, and the gradients of queries and keys."""

    def call() -> None:
        query, keys = material.query, material.keys
        _multiplied(query, keys)
        columns = query.mT.contiguous()
        scores = columns.new_empty(min(TILE, len(keys)), columns.shape[1])
        of_query, of_keys = torch.zeros_like(query), torch.empty_like(keys)
        for part, of_part in zip(keys.split(TILE), of_keys.split(TILE), strict=True):
            of_scores = torch.mm(part, columns, out=scores[: len(part)])
            of_query.addmm_(of_scores.mT, part)
            torch.mm(of_scores, query, out=of_part)

    return call


def encodings_and_products(material: Material) -> Call:
    """Objects through the encoder and back, and products forward and backward."""

    def call() -> None:
        material.encoder.zero_grad()
        query, keys = (material.encoder(inputs) for inputs in (material.query_inputs, material.support.inputs()))
        (query @ keys.T).backward(query.new_ones(len(query), len(keys)))

    return call
