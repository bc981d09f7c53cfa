"""The box of a completion, for use elsewhere: public names of `openrpt.rl.completions`."""

from openrpt.rl.completions import extract_prediction, split_thought

__all__ = ["extract_prediction", "split_thought"]
