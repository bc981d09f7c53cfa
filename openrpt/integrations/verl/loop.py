"""The agent loop: verl's rollout workers make a completion by the run's prompt, and reward it.

`agent_loop.yaml` of an exported folder names this class with its arguments. It works on token ids
throughout: verl's own loops render messages and cut long prompts from the left. It sets
`reward_score`, so that verl's reward workers, which see decoded text, are not asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.utils.profiler import simple_timer

from openrpt.engine.drawn import Drawn
from openrpt.errors import UserError
from openrpt.integrations.verl.completing import Form
from openrpt.integrations.verl.reward import checked_table, score


class NextTokenLoop(AgentLoopBase):
    """Next-token reasoning (arXiv 2506.08007, Section 3.1) as one of verl's agent loops."""

    def __init__(
        self, *, form: Mapping[str, Any], overlong_buffer: float | None = None, **given: Any
    ) -> None:
        """`form`: `Form.values`; `overlong_buffer`: see `reward.score`; `given`: verl's own.

        Raises UserError where the tokenizer is not the one that the prompts were exported with.
        """
        super().__init__(**given)
        self._form = Form.read(form)
        self._overlong_buffer = overlong_buffer
        self._table = checked_table(self.tokenizer, self._form.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Returns a completion of a row of the exported files, with its reward.

        Raises UserError for a prompt that is longer than `data.max_prompt_length`: it would be cut.
        """
        info = row["extra_info"]
        prompt_ids = [int(i) for i in info["prompt_ids"]]
        if len(prompt_ids) > self.rollout_config.prompt_length:
            raise UserError(
                f"row {info['index']} has a prompt of {len(prompt_ids)} tokens, but"
                f" data.max_prompt_length is {self.rollout_config.prompt_length}; take the value of"
                " the exported rpt.yaml"
            )
        request, outputs = uuid4().hex, []
        metrics: dict[str, float] = {}

        async def ask(token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]) -> Drawn:
            output = await self.server_manager.generate(
                request_id=request,  # one for both calls: the server that has the prefix
                prompt_ids=list(token_ids),
                sampling_params=sampling_params
                | {"max_tokens": most, "stop_token_ids": list(stop_ids)},
            )
            outputs.append(output)
            ids = [int(i) for i in output.token_ids]
            return Drawn(token_ids=ids, logprobs=output.log_probs or [0.0] * len(ids))

        with simple_timer("generate_sequences", metrics):
            completion = await self._form.complete(ask, prompt_ids)
        with simple_timer("compute_score", metrics):
            scored = score(
                completion, info, self._form, self._table, overlong_buffer=self._overlong_buffer
            )
        versions = {
            "min_global_steps": outputs[0].extra_fields.get("min_global_steps"),
            "max_global_steps": outputs[-1].extra_fields.get("max_global_steps"),
        }
        has_logprobs = all(output.log_probs is not None for output in outputs)
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=list(completion.token_ids),
            response_mask=[int(drawn) for drawn in completion.loss_mask],
            response_logprobs=list(completion.sampler_logprobs) if has_logprobs else None,
            reward_score=scored.reward,
            num_turns=2,
            metrics=metrics,
            extra_fields=versions | {"reward_extra_info": scored.metrics},
        )
