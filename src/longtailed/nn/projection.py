"""Projection heads: features -> embeddings in which contrastive losses compare images."""

from __future__ import annotations

from torch import nn


class ProjectionHead(nn.Sequential):
    """Two linear layers with batch-norm and ReLU between: features [N, A] -> embeddings [N, d].

    The embeddings are not normalised. Initialised as torch's layers are, from its default
    generator. Papers: arXiv 2002.05709; with batch-norm as in BCL, arXiv 2207.09052.
    """

    def __init__(self, num_features: int, hidden_dim: int, embedding_dim: int) -> None:
        super().__init__(
            nn.Linear(num_features, hidden_dim),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, embedding_dim),
        )
