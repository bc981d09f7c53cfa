"""The distance of generated texts from real ones, in the manner of MAUVE.

Pillutla et al. 2021 (arXiv 2102.01454, sections 2 and 3): both sets of texts become features, the
features are quantised together by k-means, and of the two histograms p and q the area under the
divergence curve is taken. 1 = the same, near 0 = nothing in common. It depends on the features and
on how many texts there are, so values are compared only where both are the same. NumPy, and
scikit-learn for PCA and k-means.
"""

import numpy as np

_SCALE = 5.0
"""The paper's c, by which KL divergences are multiplied."""
_WEIGHTS = np.linspace(0, 1, 101)
"""The weights λ of the mixtures along the curve."""
_EXPLAINED = 0.9
"""Share of the features' variance that the principal components keep."""


def divergence_area(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Returns, of histograms p, q [..., k], each summing to 1, the area [...] under the divergence
    curve.

    The curve, with r = λp + (1 − λ)q, is {(exp(−c KL(q‖r)), exp(−c KL(p‖r))) : λ in [0, 1]}, and
    ends in (0, 1) and (1, 0).

    >>> divergence_area(np.array([0.5, 0.5]), np.array([0.5, 0.5])).round(6).tolist()
    1.0
    """
    weights = _WEIGHTS[::-1, None]  # from r = p on: x grows
    mixed = weights * p[..., None, :] + (1 - weights) * q[..., None, :]  # [..., W, k]
    x = np.exp(-_SCALE * _divergence(q[..., None, :], mixed))
    y = np.exp(-_SCALE * _divergence(p[..., None, :], mixed))
    corner = np.zeros_like(x[..., :1])
    x = np.concatenate([corner, x, corner + 1], axis=-1)
    y = np.concatenate([corner + 1, y, corner], axis=-1)
    return np.trapezoid(y, x, axis=-1)


def _divergence(a: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Returns KL(a‖r) in nats over the last axis; infinite where r is 0 and a is not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * np.log(a / r), 0.0)
    return terms.sum(-1)


def _clusters_of(count: int) -> int:
    """Returns how many clusters to make for that many texts of each kind: a tenth, as the paper's
    authors take."""
    return max(2, round(count / 10))


def quantise(
    real: np.ndarray, generated: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns, of features [n, d] and [m, d], the cluster of each text, [n] and [m], of k-means
    over both.

    As in the paper: features of unit length, their principal components, k-means.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    both = normalize(np.concatenate([real, generated]).astype(np.float64))
    if np.ptp(both, axis=0).max() == 0:  # all the same: no variance to explain
        return np.zeros(len(real), dtype=int), np.zeros(len(generated), dtype=int)
    reduced = PCA(n_components=_EXPLAINED, svd_solver="full").fit_transform(both)
    count = min(_clusters_of(min(len(real), len(generated))), len(np.unique(reduced, axis=0)))
    means = KMeans(n_clusters=count, n_init=5, max_iter=500, random_state=seed)
    clusters = means.fit_predict(reduced)
    return clusters[: len(real)], clusters[len(real) :]


def histograms(clusters: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """Returns histograms [..., count], summing to 1, of clusters [n] with weights [..., n] (how
    often each text counts)."""
    onehot = np.eye(count)[clusters]  # [n, count]
    sums = weights @ onehot
    return sums / sums.sum(-1, keepdims=True)


def mauve_like(real: np.ndarray, generated: np.ndarray, *, seed: int = 0) -> float:
    """Returns the MAUVE-like score of real features [n, d] and generated ones [m, d]."""
    a, b = quantise(real, generated, seed=seed)
    count = int(max(a.max(), b.max())) + 1
    p, q = (histograms(one, count, np.ones(len(one))) for one in (a, b))
    return float(divergence_area(p, q))
