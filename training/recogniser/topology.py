"""Perturbation-guided topological structure alignment (PTSA): pictures and embeddings of a batch should hang together
in the same way.

Dan et al., "TopoFR", NeurIPS 2024; official ``persistent_homology``. In dimension 0 the persistence diagram of a
Vietoris-Rips filtration is the set of edges of a minimum spanning tree, which scipy finds.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

LARGEST_STEP = 2.0
EPS = 1e-6
Scale = Literal["raw", "alike"]


def death_edges(distances: Tensor) -> Tensor:
    """Pairs (B - 1, 2) at whose distances components of the batch merge, nearest first.

    Args:
        distances: (B, B), symmetric, zero on the diagonal.
    """
    from scipy.sparse.csgraph import minimum_spanning_tree

    size = len(distances)
    upper = torch.triu(torch.ones(size, size, dtype=torch.bool), diagonal=1)
    # A graph without an entry has no edge there: equal pictures would fall out of the tree at distance 0.
    weights = distances.detach().double().cpu() + 1.0
    tree = minimum_spanning_tree(torch.where(upper, weights, 0.0).numpy()).tocoo()
    order = tree.data.argsort(kind="stable")
    return torch.stack([torch.from_numpy(tree.row[order]), torch.from_numpy(tree.col[order])], dim=1).long()


def topological_loss(images: Tensor, embeddings: Tensor, scale: Scale = "raw") -> Tensor:
    """Squared differences of the k-th merging distances of clean pictures and of embeddings, over the batch size.

    Args:
        images: (B, ...) clean pictures in -1..1.
        embeddings: (B, D); gradients flow through the distances of the chosen pairs.
        scale: ``raw`` compares distances as they are, as the published code does: a long run first shrinks the
            embeddings to the pictures' scale. ``alike`` divides the embeddings' distances by the factor that gives
            both the same mean, so that a short run, whose embeddings stay long, is not taken up by shrinking them.
    """
    flat = images.detach().flatten(1)
    far = LARGEST_STEP * math.sqrt(flat.shape[1])
    pictures = _distances(flat) / far
    between = _distances(embeddings)
    wanted = _at(pictures, death_edges(pictures))
    rows, columns = death_edges(between).to(embeddings.device).T
    found = (embeddings[rows] - embeddings[columns]).norm(dim=1)
    if scale == "alike":
        found = found * (pictures.mean().to(found) / between.mean().clamp(min=EPS))
    return (wanted.to(found) - found).square().sum() / len(images)


def _distances(rows: Tensor) -> Tensor:
    # The exact differences: the matrix product's shortcut loses the small distances that make the tree.
    return torch.cdist(rows.detach(), rows.detach(), compute_mode="donot_use_mm_for_euclid_dist")


def _at(distances: Tensor, pairs: Tensor) -> Tensor:
    return distances[pairs[:, 0], pairs[:, 1]]
