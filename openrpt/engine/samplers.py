"""The sampler that a configuration asks for."""

import torch.distributed as dist

from openrpt.config.sections import Config
from openrpt.data.prompts import Budget, Layout
from openrpt.engine.engine import Engine, Sampler
from openrpt.engine.own_sampler import load_sampler, open_own
from openrpt.errors import UserError


def open_sampler(engine: Engine, config: Config, layout: Layout) -> Sampler:
    """Returns what draws training's rollouts (`engine.sampler`): the policy's own engine, vLLM,
    which has none of its weights until they are loaded, or a user's own.

    Raises UserError where vLLM is missing or can't run the model, and where a server does not
    answer or has another model or tokenizer, and where several processes train with vLLM; for a
    user's own as `open_own`.
    """
    settings = config.engine
    if own := load_sampler(settings):
        return open_own(own, engine, config, layout)
    if settings.sampler == "same":
        return engine
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes > 1:
        raise UserError(
            f"engine.sampler = 'vllm' draws for one trainer's process, and there are {processes};"
            " train with --engine.sampler same"
        )
    from openrpt.engine.vllm.local import open_local
    from openrpt.engine.vllm.sampler import VLLMSampler
    from openrpt.engine.vllm.server import open_server

    budget = Budget.of(config.prompt)
    length = len(layout.head_ids) + config.prompt.window + budget.behind(layout)
    model, dtype = engine.model, config.model.product_dtype
    if settings.server:
        server = open_server(model, settings, length=length, dtype=dtype)
        return VLLMSampler(engine=engine, backend=server)
    local = open_local(
        model,
        dtype=dtype,
        length=length,
        rollouts=config.memory.generation_rollouts,
        cache_gib=settings.cache_gib,
    )
    return VLLMSampler(engine=engine, backend=local)
