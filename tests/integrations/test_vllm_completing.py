"""The two questions of verl's agent loop, put to vLLM itself, which is what verl's servers run.

Run by `python scripts/environments.py --check vllm`, in vLLM's environment.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

# In this process, on the threads that there are.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
pytest.importorskip("vllm", reason="needs vLLM's environment")

import vllm

from openrpt.engine.drawn import Drawn
from openrpt.integrations.verl.completing import Form
from tests.helpers.tiny import think_tokenizer
from tests.helpers.tiny_model import tiny_model_folder

_ENDS, _STOPS = 40, 1


def test_vllm_gives_stops_back_and_is_asked_as_the_loop_asks(tmp_path: Path) -> None:
    """Every completion is a thought that ends itself, stops or is closed, and a prediction; its
    log-probabilities are those of the tokens that were drawn."""
    tokenizer = think_tokenizer()
    end = tokenizer.convert_tokens_to_ids("</think>")
    # vLLM's attention on a CPU has no heads of 16.
    model = tiny_model_folder(tmp_path / "model", tokenizer=tokenizer, head_dim=32)
    engine = vllm.LLM(
        model=str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=96,
        kv_cache_memory_bytes=1 << 26,
    )
    form = Form(
        think_budget=_ENDS,
        prediction_budget=6,
        close_ids=(end, 20, 21),
        answer_start_ids=(20, 21),
        thought_end_ids=(end,),
        stop_ids=(_STOPS,),
        thought_end="</think>",
        literal={end: "</think>"},
        tokenizer="",
    )
    seed = 0

    async def ask(token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]) -> Drawn:
        nonlocal seed
        seed += 1
        params = vllm.SamplingParams(
            max_tokens=most, stop_token_ids=list(stop_ids), temperature=1.0, seed=seed, logprobs=0
        )
        prompt = {"prompt_token_ids": list(token_ids)}
        (output,) = engine.generate(prompt, params, use_tqdm=False)[0].outputs
        ids = list(output.token_ids)
        logprobs = [found[i].logprob for i, found in zip(ids, output.logprobs, strict=True)]
        return Drawn(token_ids=ids, logprobs=logprobs)

    kinds = set()
    for _ in range(60):
        completion = asyncio.run(form.complete(ask, [30, 31, 32, 33]))
        ids, mask = completion.token_ids, completion.loss_mask
        if False in mask:
            kinds.add("closed")
            assert mask.index(False) == _ENDS and ids[_ENDS : _ENDS + 3] == form.close_ids
            assert len(ids) <= _ENDS + 3 + 6
        elif end in ids[:_ENDS]:
            kinds.add("ended")
            assert len(ids) - ids.index(end) - 1 <= 6 + 2
        else:
            kinds.add("stopped")
            assert ids[-1] == _STOPS and completion.finish_reason == "stop"
        assert _STOPS not in ids[:-1]
        drawn = [p for p, own in zip(completion.sampler_logprobs, mask, strict=True) if own]
        assert all(p < 0 for p in drawn)
    assert kinds == {"closed", "ended", "stopped"}
