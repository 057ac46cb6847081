"""Two normal classes on a line: what similar samples and sample numbers do to their boundary.

Head h ~ N(mu_h, s^2) and tail t ~ N(mu_t, s^2); the ideal boundary is (mu_h + mu_t) / 2 and its
estimate theta the middle between the two sample means. Each head-labelled sample is, with
probability p, moved towards the tail by lam (mu_t - mu_h), where lam in 0..1 is the similarity
(for mixed images the weight of the tail image).

Reconstructed: the theorem of arXiv 2107.03758 is not public (the paper was withdrawn). It is the
bias that contaminated labels cause in arXiv 2006.07529.
"""

from __future__ import annotations


def boundary_shift(fraction: float, similarity: float, head_mean: float, tail_mean: float) -> float:
    """Return E[theta] - theta* = p lam (mu_t - mu_h) / 2, a shift towards the tail.

    It does not shrink with more samples.

    >>> boundary_shift(0.2, 0.8, head_mean=1.0, tail_mean=3.0)
    0.16000000000000003
    """
    return fraction * similarity * (tail_mean - head_mean) / 2


def boundary_variance(
    head_count: int,
    tail_count: int,
    deviation: float,
    fraction: float = 0.0,
    similarity: float = 0.0,
    distance: float = 0.0,
) -> float:
    """Return Var[theta] = (s^2 / n_h + s^2 / n_t + p (1 - p) lam^2 d^2 / n_h) / 4.

    d = mu_t - mu_h is `distance`. Without similar samples it is s^2 / 4 over the harmonic
    n_h n_t / (n_h + n_t), so the rarer class dominates: sample numbers enter only here.
    """
    spread = fraction * (1 - fraction) * (similarity * distance) ** 2
    return ((deviation**2 + spread) / head_count + deviation**2 / tail_count) / 4
