"""Groups of stored rollouts as the page shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from openrpt.report.chunks import as_text, finite
from openrpt.rl.rewards.matching import matched_tokens


def encode_groups(
    groups: Sequence[dict[str, Any]],
    tokens: Sequence[bytes] | None,
    places: Mapping[str, Mapping[int, int]],
) -> list[dict[str, Any]]:
    """Returns the groups of one document as the page has them.

    `tokens`: the document's; None = its text is absent, so that each group brings the end of its
    prefix and its continuation. `places`: by the label of a model with a tokenizer of its own, its
    positions → the document's; those that are no place there are left out.
    """
    found = []
    for group in groups:
        position, model = group["position"], group["model"]
        if tokens is None:
            found.append(_group(group, position, None))
        elif model not in places:
            found.append(_group(group, position, tokens[position:]))
        elif position in places[model]:
            found.append(_group(group, places[model][position], group["continuation"]))
    return found


def _group(
    group: Mapping[str, Any], position: int, continuation: Sequence[bytes] | None
) -> dict[str, Any]:
    """Returns one group as the page has it. `continuation`: what predictions are compared with,
    where the document is there."""
    shown: dict[str, Any] = {
        "step": group["step"],
        "position": position,
        "entropy": finite([group["entropy"]])[0],
        "ntp": as_text(group["ntp_prediction"]),
        "candidates": [as_text(token) for token in group["candidates"]],
        "rollout": group["rollout"],
        "thought": [as_text(thought) for thought in group["thought"]],
        "prediction": [None if said is None else as_text(said) for said in group["prediction"]],
        "reward": finite(group["reward"]),
        "advantage": finite(group["advantage"], 3),
        "finish": group["finish_reason"],
    }
    if group["evaluated"]:
        shown["evaluated"] = 1
    if group["model"]:
        shown["model"] = group["model"]
    if group.get("ntp_top"):
        shown["top"] = [as_text(token) for token in group["ntp_top"]]
        shown["top_logprobs"] = finite(group["ntp_top_logprobs"], 4)
    if group.get("candidate_logprobs"):
        shown["candidate_logprobs"] = finite(group["candidate_logprobs"], 4)
    if continuation is None:
        continuation = group["continuation"]
        shown["prefix"] = as_text(group["prefix_end"])
        shown["continuation"] = [as_text(token) for token in continuation]
    shown["ntp_right"] = int(matched_tokens(group["ntp_prediction"], continuation) > 0)
    shown["matched"] = [matched_tokens(said, continuation) for said in group["prediction"]]
    if None not in group.get("completion", [None]):
        shown["completion"] = [as_text(completion) for completion in group["completion"]]
        shown["lengths"] = group["tokens"]
        shown["surprise"] = group["sampler_logprobs"]
        shown["trained"] = group["loss_mask"]
    terms = [
        {term["name"]: term["value"] for term in own or ()} for own in group.get("reward_terms", ())
    ]
    shown["terms"] = {
        name: finite([own.get(name, float("nan")) for own in terms], 4)
        for name in dict.fromkeys(name for own in terms for name in own)
    }
    return shown
