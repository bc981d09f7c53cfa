"""The gate that a model passes when it is loaded."""

import pytest
import torch

from openrpt.errors import UserError
from openrpt.model_check import require_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("value", "word"), [("nan", "NaN"), ("inf", "infinity"), ("-inf", "infinity")]
)
def test_the_tensor_that_is_not_finite_is_named(dtype, value, word):
    tensors = {"ids": torch.arange(3), "empty": torch.ones(0, 4), "a": torch.ones(5, 3).to(dtype)}
    require_finite(tensors.items(), what="model 'x'")
    tensors["b.weight"] = torch.full((2, 2), float(value)).to(dtype)
    with pytest.raises(UserError, match=rf"model 'x' has {word} in the weights \(b\.weight\)"):
        require_finite(tensors.items(), what="model 'x'")
