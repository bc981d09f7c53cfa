"""Rotary positions of a GGUF file, as transformers states them.

llama.cpp keeps them in keys (`ARCH.rope.*`) and, for Llama 3.1 and later, in a tensor of divisors
of the frequencies (`rope_freqs.weight`), from which the parameters are found again.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrpt.engine.gguf_file import GgufFile
from openrpt.errors import UserError

if TYPE_CHECKING:
    import numpy as np


DIVISORS = "rope_freqs.weight"
_DEFAULT_BASE = 10000.0
_SCALING = "rope.scaling."
KEYS = {
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scale_linear",  # the factor's name in older files
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",  # says whether the model was trained further: no number changes
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
_ONLY_ONE = ("attn_factor", "yarn_ext_factor", "yarn_attn_factor")
"""Scaling keys that are carried where they are 1, which changes nothing."""
_PLATEAU = 1e-5
"""Distance from a plateau of the divisors that counts as on it: frequencies are computed in
float32."""
_ROUNDING = 2e-6
"""Relative difference between two ways of computing a frequency in float32."""
_TOLERANCE = 2e-5
"""Relative difference from the file's frequencies that is still their rounding."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rope:
    """The rotary positions of a file."""

    frequencies: "np.ndarray"
    """Frequencies [D / 2] in radians a token, as the file scales them."""
    parameters: dict[str, Any]
    """The config's `rope_parameters`."""
    attention_factor: float = 1.0
    """Factor of cosines and sines."""


def read_rope(file: GgufFile, *, head_dim: int) -> Rope:
    """Returns the file's rotary positions over `head_dim` dimensions.

    Raises UserError, which names the key or the tensor, for a scaling that can't be carried over.
    """
    import numpy as np

    said = file.hyperparameters
    dimensions = said.get("rope.dimension_count", head_dim)
    if dimensions != head_dim:
        raise _refusal(file, "rope.dimension_count", f" (its heads have {head_dim} dimensions)")
    base = float(said.get("rope.freq_base", _DEFAULT_BASE))
    factor = float(said.get("rope.scaling.factor", said.get("rope.scale_linear", 0.0))) or 1.0
    if not (1.0 < base < math.inf and 0.0 < factor < math.inf):
        raise file.damage(f"its RoPE has the base {base} and the factor {factor}")
    plain = base ** (-np.arange(0, head_dim, 2) / head_dim)
    theta = {"rope_theta": base}
    kind = said.get("rope.scaling.type", "linear")  # llama.cpp's default
    for name in _ONLY_ONE:
        if said.get(_SCALING + name, 1.0) != 1.0:
            raise _refusal(file, _SCALING + name)
    if kind not in ("none", "linear", "yarn"):
        raise _refusal(file, "rope.scaling.type")
    scaled = kind != "none" and factor != 1.0
    if DIVISORS in file.tensors:
        if scaled:
            raise _refusal(file, "rope.scaling.factor", f" beside the tensor {DIVISORS}")
        divisors = file.values(DIVISORS).astype(np.float64).reshape(-1)
        return _divided(file, plain, divisors, theta)
    if not scaled:
        return Rope(frequencies=plain, parameters=theta | {"rope_type": "default"})
    if kind == "linear":
        linear = {"rope_type": "linear", "factor": factor}
        return Rope(frequencies=plain / factor, parameters=theta | linear)
    return _yarn(said, plain, base, factor)


def require_same_rope(file: GgufFile, rope: Rope, model: Any) -> None:
    """Compares the file's frequencies with those of the model that was made from it.

    Raises UserError where they differ.
    """
    import numpy as np

    buffers = [b for name, b in model.named_buffers() if name.endswith(".inv_freq")]
    same = bool(buffers) and all(
        buffer.shape == rope.frequencies.shape
        and np.allclose(buffer.double().numpy(), rope.frequencies, rtol=_TOLERANCE, atol=0.0)
        for buffer in buffers
    )
    found = model.base_model.rotary_emb.attention_scaling
    if not same or not math.isclose(found, rope.attention_factor, rel_tol=_TOLERANCE):
        named = DIVISORS if DIVISORS in file.tensors else f"{file.architecture}.rope.*"
        raise file.refusal(f"its rotary positions ({named}) are of an unknown kind")


def _yarn(said: dict[str, Any], plain: "np.ndarray", base: float, factor: float) -> Rope:
    """Returns the parameters of YaRN: fast dimensions keep their frequency, slow ones are divided,
    with a ramp between them."""
    import numpy as np

    original = said.get("rope.scaling.original_context_length", said["context_length"])
    fast = float(said.get("rope.scaling.yarn_beta_fast", 32.0))  # rotations over the context
    slow = float(said.get("rope.scaling.yarn_beta_slow", 1.0))
    dimensions = 2 * len(plain)

    def dimension(rotations: float) -> float:
        """The (fractional) dimension pair that turns so often over the original context."""
        turns = math.log(original / (rotations * 2 * math.pi))
        return dimensions * turns / (2 * math.log(base))

    low = max(0, math.floor(dimension(fast)))
    high = min(dimensions - 1, math.ceil(dimension(slow)))
    ramp = np.clip((np.arange(len(plain)) - low) / max(0.001, high - low), 0.0, 1.0)
    parameters = {
        "rope_type": "yarn",
        "rope_theta": base,
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": fast,
        "beta_slow": slow,
    }
    return Rope(
        frequencies=plain * (ramp / factor + 1.0 - ramp),
        parameters=parameters,
        attention_factor=1.0 + 0.1 * math.log(factor),
    )


def _divided(
    file: GgufFile, plain: "np.ndarray", divisors: "np.ndarray", theta: dict[str, Any]
) -> Rope:
    import numpy as np

    fit = divisors.shape == plain.shape and np.isfinite(divisors).all()
    rises = fit and (np.diff(divisors) > -_PLATEAU * divisors[1:]).all()
    if not rises or divisors.min() < 1.0 - _PLATEAU:
        raise file.refusal(f"the tensor {DIVISORS} isn't {len(plain)} rising numbers from 1 on")
    largest = float(np.median(divisors[divisors >= divisors.max() * (1 - _PLATEAU)]))
    if (divisors < largest * (1 - _PLATEAU)).any():
        kind = _llama3(plain / (2 * math.pi), divisors, largest)
    elif largest > 1.0 + _PLATEAU:
        kind = {"rope_type": "linear", "factor": _simplest(largest, _PLATEAU)}
    else:
        kind = {"rope_type": "default"}
    return Rope(frequencies=plain / divisors, parameters=theta | kind)


def _llama3(turns: "np.ndarray", divisors: "np.ndarray", largest: float) -> dict[str, Any]:
    """Returns the parameters that give these divisors, if they are Llama 3's (`require_same_rope`
    tells).

    `turns`: each dimension's rotations a token before they are divided. The parameters are round
    numbers if these are as near as float32 can tell.
    """
    lower, upper = _llama3_bounds(turns, divisors, largest)
    original = max(1, round(1 / lower))  # only its products with the bounds count; Meta's low is 1
    parameters: dict[str, Any] = {}
    for tolerance in (_PLATEAU, 0.0):
        factor = _simplest(largest, tolerance)
        low = _simplest(original * lower, tolerance)
        high = _simplest(original * upper, tolerance)
        parameters = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
        height = ((original * turns - low) / (high - low)).clip(0.0, 1.0)
        given = 1 / (height + (1 - height) / factor)
        if (abs(given / divisors - 1) < _ROUNDING).all():
            break
    return parameters


def _llama3_bounds(
    turns: "np.ndarray", divisors: "np.ndarray", largest: float
) -> tuple[float, float]:
    """Returns the rotations a token below which all is divided by `largest`, and from which nothing
    is.

    Between them the divisor's reciprocal is a straight line, so two points of it give both. With
    one point, the upper bound is taken as 4 times the lower (Meta's), or, where that contradicts
    the other dimensions, a plateau's nearest point stands in for the second; with none, any bounds
    between the plateaus do.
    """
    height = (1 / divisors - 1 / largest) / (1 - 1 / largest)  # 0: divided; 1: kept
    order = turns.argsort()
    turns, height = turns[order], height[order]
    divided = float(turns[height <= _PLATEAU].max())
    kept = float(turns[height >= 1 - _PLATEAU].min(initial=math.inf))
    between = (height > _PLATEAU) & (height < 1 - _PLATEAU)
    x, y = turns[between].tolist(), height[between].tolist()
    if not x:
        gap = (kept - divided) / 3
        return divided + gap, kept - gap
    if len(x) > 1:
        slope = max(y[-1] - y[0], _PLATEAU) / (x[-1] - x[0])
        return x[0] - y[0] / slope, x[0] + (1 - y[0]) / slope
    lower = x[0] / (1 + 3 * y[0])
    if divided <= lower and 4 * lower <= kept:
        return lower, 4 * lower
    upper = min(kept, divided + (x[0] - divided) / y[0])
    return upper - (upper - x[0]) / (1 - y[0]), upper


def _simplest(value: float, tolerance: float) -> float:
    """Returns the number of fewest digits that differs by no more than this part of the value."""
    rounded = (float(f"{value:.{digits}g}") for digits in range(1, 18))
    return next(r for r in rounded if abs(r - value) <= tolerance * abs(value))


def _refusal(file: GgufFile, key: str, remark: str = "") -> UserError:
    said = file.hyperparameters.get(key)
    return file.refusal(f"it says {file.architecture}.{key} = {said}{remark}")
