"""Bootstrap resamples of documents. NumPy only."""

import numpy as np

RESAMPLES = 4000


def drawn_documents(documents: int, seed: int) -> np.ndarray:
    """Returns [RESAMPLES, D] the documents of each bootstrap resample."""
    return np.random.default_rng(seed).integers(documents, size=(RESAMPLES, documents))


def means_of_draws(values: np.ndarray, index: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Returns, of values [n], the document of each as a number below D [n], and draws [RESAMPLES,
    D], the mean of each resample [RESAMPLES]; not a number where none of these documents was
    drawn."""
    count = draws.shape[1]
    sums = np.bincount(index, weights=values, minlength=count)[draws].sum(1)
    sizes = np.bincount(index, minlength=count)[draws].sum(1)
    return np.divide(sums, sizes, out=np.full(len(draws), np.nan), where=sizes > 0)


def document_weights(documents: int, *, seed: int = 0) -> np.ndarray:
    """Returns [RESAMPLES, D] how often each document is drawn in each bootstrap resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
