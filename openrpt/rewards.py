"""The byte-exact reward, for use elsewhere: public names of `openrpt.rl.rewards.matching`."""

from openrpt.rl.rewards.matching import (
    dense_reward,
    first_token_match,
    matched_tokens,
    prefix_match,
)

__all__ = ["dense_reward", "first_token_match", "matched_tokens", "prefix_match"]
