"""OpenRPT's models in lm-eval (EleutherAI's harness): its tasks, asked through our generator.

    python -m openrpt.integrations.lm_eval run --model openrpt \\
        --model_args path=runs/maths/checkpoints/best,think_budget=256 \\
        --tasks openrpt_mmlu_pro_think --apply_chat_template

is lm-eval's own command with the model `openrpt` and our task files known to it. Needs the extra:
pip install "openrpt[lm-eval]".
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

from openrpt.config.loading import load_config
from openrpt.data.chat import render_chat
from openrpt.engine.cpu import use_cpu
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.answer_book import Answer
from openrpt.evaluation.end_tasks.asked import Asked
from openrpt.evaluation.end_tasks.respondent import Respondent
from openrpt.progress import SILENT, Progress

try:
    import lm_eval.api.task
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ImportError as error:
    raise UserError(
        f'zero-shot tasks need lm-eval; install it with: pip install "openrpt[lm-eval]" ({error})'
    ) from None

TASKS = Path(__file__).with_name("tasks")
_NOT_SAMPLED = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "num_beams": 1}
"""Ways of sampling that are not ours, and the value that asks for nothing."""


@register_model("openrpt")
class OpenRPTLM(TemplateLM):
    """A policy as lm-eval's model class.

    `think_budget`: tokens of thought before each generated answer (None = none at all); only what
    follows the thought is given to the task. Samples of one question share its prompt.
    """

    def __init__(
        self,
        respondent: Respondent | None = None,
        *,
        path: str = "",
        think_budget: int | None = None,
        answer_start: str = "",
        trainer: str = "tree",
        batch_size: Any = None,  # lm-eval gives these two to every model
        max_batch_size: Any = None,
        **model: Any,
    ) -> None:
        """Opens the policy by `path` and keys of [model] (device=cpu, dtype=bfloat16), and
        engine.trainer, as on the command line; or with a respondent that is there already."""
        super().__init__()
        if respondent is None:
            keys = {"path": path} if path else {}
            given = {f"model.{key}": value for key, value in (keys | model).items()}
            config = load_config(overrides=given | {"engine.trainer": trainer})
            use_cpu(config.model.threads)  # lm-eval's command knows nothing of it
            respondent = Respondent(open_engine(config), config)
        self.respondent = respondent
        self.think_budget, self.answer_start = think_budget, answer_start
        self.tokenizer = respondent.policy.tokenizer
        self._device = respondent.policy.device
        self.progress: Progress = SILENT
        self.chats = False
        """Whether contexts are chats: lm-eval has asked for one, and writes all of a call alike."""
        self.given: dict[tuple[str, int], list[Answer]] = {}
        """The answers given, by (task, doc_id)."""

    @property
    def eot_token_id(self) -> int:
        """The id of the token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The id of the token behind which a text without a context is rated."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm-eval keeps rendered chats."""
        return self.respondent.policy.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Returns a text's token ids; with special tokens, as the policy is asked."""
        if add_special_tokens is False:
            return self.tokenizer.encode(string, add_special_tokens=False)
        return self.respondent.encode(string, chat=self.chats)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns a chat as one text, in the tokenizer's template."""
        self.chats = True
        return render_chat(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # ---- the three requests

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Rates each request; those of one context, which follow one another, share its pass."""
        self._rated: list[Answer] = []
        """A request: the answer that it is a part of."""
        found: list[tuple[float, bool]] = []
        for contexts, (context, group) in enumerate(groupby(requests, key=lambda r: r[1]), 1):
            asked = list(group)
            answer = self.respondent.rate(context, [ids for _, _, ids in asked])
            for (strings, _, _), logprob in zip(asked, answer.logprobs, strict=True):
                if strings is not None:
                    self.cache_hook.add_partial("loglikelihood", strings, logprob)
            found += answer.logprobs
            self._rated += [answer] * len(asked)
            self.progress.update(contexts)
        return found

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Returns (log-likelihood, whether it is the greedy one) for each request's
        continuation."""
        found = super().loglikelihood(requests, disable_tqdm=True)
        for request, answer in zip(requests, self._rated, strict=True):
            self._remember(request, answer)
        return found

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Returns each text's log-likelihood as a whole, read in windows where it is long."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.respondent.policy.max_length,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            rated = self._loglikelihood_tokens([(None, *pair) for pair in pairs])
            found.append(sum(logprob for logprob, _ in rated))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Returns an answer to each request; repeats of one, which follow one another, are its
        samples."""
        groups = [list(group) for _, group in groupby(requests, key=id)]
        pairs = [(group[0].args[0], self.asked(group[0].args[1], len(group))) for group in groups]
        answers = self.respondent.say_each(pairs)
        found: list[str] = []
        for done, (group, answer) in enumerate(zip(groups, answers, strict=True), 1):
            sampled = len(answer.texts) == len(group)
            found += answer.texts if sampled else answer.texts * len(group)
            self._remember(group[0], answer)
            self.cache_hook.add_partial("generate_until", group[0].args, answer.texts[0])
            self.progress.update(done)
        return found

    def _remember(self, request: Instance, answer: Answer) -> None:
        known = self.given.setdefault((request.task_name, request.doc_id), [])
        if not any(other is answer for other in known):
            known.append(answer)

    def asked(self, settings: dict[str, Any], repeats: int) -> Asked:
        """Returns a task's generation settings. Raises UserError for a way of sampling that is not
        ours."""
        given: dict[str, Any] = dict(normalize_gen_kwargs(settings))
        for name, nothing in _NOT_SAMPLED.items():
            if given["do_sample"] and given.get(name, nothing) not in (nothing, None):
                raise UserError(
                    f"the task samples with {name} = {given[name]}; OpenRPT samples from the whole"
                    f" distribution: give {name} = {nothing} in its generation_kwargs"
                )
        until = given["until"]
        return Asked(
            max_tokens=given["max_gen_toks"],
            think_budget=self.think_budget,
            answer_start=self.answer_start,
            until=tuple([until] if isinstance(until, str) else until),
            samples=repeats if given["do_sample"] else 0,
            temperature=float(given.get("temperature") or 1.0),
            chat=self.chats,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Runs the block without lm-eval's own bars and log lines: the stage shows its own progress."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    silent = partial(tqdm, disable=True)
    with patch.object(lm_eval.api.task, "tqdm", silent):
        yield
