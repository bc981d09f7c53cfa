"""A stand-in for verl's `LLMServerClient`: a policy by rote, that is often right."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from verl.workers.rollout.replica import TokenOutput

from openrpt.integrations.verl.completing import Form

VLLM_KEYS = {"temperature", "top_p", "top_k", "repetition_penalty", "logprobs", "stop_token_ids"}
"""What verl's vLLM server passes on to vLLM's SamplingParams, `max_tokens` aside."""


class RoteServer:
    """Draws tokens as a server would: at most `max_tokens`, up to a stop, which is the last.

    A thought is of random ids; it ends by itself, by a stop, or is as long as is asked for. An
    answer is the text's next tokens, or others. Plain data, so that it can be sent to workers.
    """

    def __init__(
        self,
        form: Form,
        truths: Mapping[tuple[int, ...], Sequence[int]],
        *,
        hopeless: Collection[tuple[int, ...]],
        end_box: int,
        words: int,
    ) -> None:
        """`truths`: the true ids behind each prompt; `hopeless`: prompts that it never knows;
        `end_box`: the token that closes a box; `words`: ids below it are said in thoughts, stops
        and delimiters aside."""
        self._form, self._truths, self._hopeless = form, dict(truths), set(hopeless)
        self._end_box = end_box
        barred = {*form.stop_ids, *form.thought_end_ids, *form.literal}
        self._words = [i for i in range(words) if i not in barred]
        self._thinking: dict[str, tuple[int, ...]] = {}
        """The prompt of each request whose thought was drawn."""

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        **other: Any,
    ) -> TokenOutput:
        most = sampling_params.pop("max_tokens")  # as verl's server does, in its own copy
        assert sampling_params.keys() <= VLLM_KEYS and not other
        assert all(type(i) is int for i in prompt_ids)
        rng = np.random.default_rng(zlib.crc32(request_id.encode()))
        prompt = self._thinking.pop(request_id, None)
        if prompt is None:
            self._thinking[request_id] = tuple(prompt_ids)
            drawn = self._thought(rng, most)
        else:
            drawn = self._answer(rng, prompt, prompt_ids)
        stops = sampling_params["stop_token_ids"]
        end = next((n for n, i in enumerate(drawn, 1) if i in stops), len(drawn))
        ids = drawn[: min(end, most)]
        return TokenOutput(
            token_ids=ids,
            log_probs=[-0.5] * len(ids) if sampling_params["logprobs"] else None,
            stop_reason="completed",
            extra_fields={"global_steps": 3, "min_global_steps": 3, "max_global_steps": 3},
        )

    def _thought(self, rng: np.random.Generator, most: int) -> list[int]:
        words = rng.choice(self._words, rng.integers(0, 2 * most)).tolist()
        ends = self._form.thought_end_ids if rng.random() < 0.8 else self._form.stop_ids
        return [*words, *ends]

    def _answer(
        self, rng: np.random.Generator, prompt: tuple[int, ...], before: list[int]
    ) -> list[int]:
        form = self._form
        forced = tuple(before[-len(form.close_ids) :]) == form.close_ids
        truth = list(self._truths[prompt])
        said = truth[: rng.integers(1, 4)] if rng.random() < 0.6 else truth[1:3]
        if prompt in self._hopeless:
            said = []
        return [*(() if forced else form.answer_start_ids), *said, self._end_box, *form.stop_ids]
