"""LoRA adapters reach every matrix of a layer, and merge into what they give."""

import pytest
import torch
import transformers as tf

from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.loading import load_model
from openrpt.engine.lora import add_lora
from openrpt.errors import UserError
from openrpt.runs.checkpoints import save_checkpoint
from tests.helpers.tiny_model import tiny_config, tiny_model_folder

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft

IDS = torch.tensor([[(7 * i + 3) % 390 for i in range(30)]])
EXPERTS = {
    "qwen3_moe": {
        "head_dim": 16,
        "moe_intermediate_size": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "granitemoe": {"num_local_experts": 4},
    "mixtral": {"num_local_experts": 4},
}


@pytest.mark.parametrize("family", ["llama", *EXPERTS])
def test_adapters_reach_all_matrices_and_merge(tmp_path, family):
    tiny_model_folder(tmp_path / "model", family=family, **EXPERTS.get(family, {}))
    config = tiny_config(tmp_path, model__lora_rank=2)
    policy = load_model(config.model, trained=True)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    logits = policy.network(IDS).logits
    logits.square().sum().backward()
    assert all(parameter.grad.any() for parameter in policy.parameters())

    before = dict(load_model(config.model).network.named_parameters())
    path = save_checkpoint(tmp_path / "step", policy, TrainerState(stage="train"), config)
    merged = load_model(config.model, path=str(path))
    torch.testing.assert_close(merged.network(IDS).logits, logits, rtol=1e-4, atol=1e-5)
    same = [n for n, p in merged.network.named_parameters() if p.ndim > 1 and p.equal(before[n])]
    gates = [name for name in same if "router" in name]  # of some families no linear module
    assert set(same) == {"model.embed_tokens.weight", *gates}


def test_what_peft_refuses_names_the_way_out():
    config = tf.MambaConfig(vocab_size=99, hidden_size=16, state_size=4, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"'mamba' can't have LoRA adapters: .*lora_rank 0"):
        add_lora(tf.MambaForCausalLM(config), rank=2, alpha=4)
