"""A policy and its optimizer after two steps on some loss."""

from pathlib import Path

import torch

from openrpt.config.sections import Config
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from tests.helpers.tiny_model import tiny_config

IDS = torch.tensor([[40, 41, 42, 43, 44, 45]])


def trained(folder: Path, **overrides) -> tuple[Config, Model, torch.optim.Optimizer]:
    """A policy and its optimizer after two steps on some loss."""
    config = tiny_config(folder, **overrides)
    policy = load_model(config.model, trained=True)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, fused=True)
    for _ in range(2):
        policy.network(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return config, policy, optimizer
