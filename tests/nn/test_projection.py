from __future__ import annotations

import torch

from longtailed.nn import ProjectionHead


def test_sizes_are_the_published_ones():
    sizes = {(64, 512, 128): 99_968, (2048, 2048, 1024): 6_298_624}
    for arguments, parameters in sizes.items():
        head = ProjectionHead(*arguments)
        assert sum(p.numel() for p in head.parameters()) == parameters


def test_embeddings_are_not_normalised():
    embeddings = ProjectionHead(6, 8, 3)(torch.randn(5, 6, generator=torch.Generator()))
    assert embeddings.shape == (5, 3)
    assert not torch.allclose(embeddings.norm(dim=1), torch.ones(5))
