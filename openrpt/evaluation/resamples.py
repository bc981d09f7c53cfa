"""Bootstrap resamples of documents. NumPy only."""

import numpy as np

RESAMPLES = 4000
_SEED = 0
"""The same draws for all models, so that the same numbers give the same interval."""


def drawn_documents(documents: int) -> np.ndarray:
    """Returns [RESAMPLES, D] the documents of each bootstrap resample."""
    return np.random.default_rng(_SEED).integers(documents, size=(RESAMPLES, documents))


def means_of_draws(values: np.ndarray, index: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Returns, of values [n], the document of each as a number below D [n], and draws [RESAMPLES,
    D], the mean of each resample [RESAMPLES]; not a number where none of these documents was
    drawn."""
    count = draws.shape[1]
    sums = np.bincount(index, weights=values, minlength=count)[draws].sum(1)
    sizes = np.bincount(index, minlength=count)[draws].sum(1)
    return np.divide(sums, sizes, out=np.full(len(draws), np.nan), where=sizes > 0)


def document_weights(documents: int) -> np.ndarray:
    """Returns [RESAMPLES, D] how often each document is drawn in each bootstrap resample."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
