"""Tiny model folders and run folders, made in well under a second: what the stages run on."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from tests.helpers.tiny import byte_level_tokenizer

LETTERS = "qzxjkvwbfgpm"
"""Each is one token of the tests' tokenizers; together they are the learnable text's period."""


def tiny_model_folder(
    path: Path,
    *,
    family: str = "llama",
    tokenizer: Any = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    initializer_range: float = 0.05,
    **options: Any,
) -> Path:
    """A random model with a tokenizer, as a plain Hugging Face folder; options of its config."""
    tokenizer = tokenizer or byte_level_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    torch.manual_seed(seed)
    if family == "gpt2":  # float64 throughout: no RMSNorm, whose float32 inside rounds
        config: Any = tf.GPT2Config(
            vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=4, n_positions=128, **ids
        )
    else:
        config = tf.AutoConfig.for_model(
            family,
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            **ids,
        )
    config.update({"initializer_range": initializer_range} | options)
    model = tf.AutoModelForCausalLM.from_config(config).to(dtype)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def periodic_corpus(path: Path, *, documents: int = 12, letters: int = 60) -> Path:
    """Documents that go round the letters from different starts: every next token is known to
    whoever has learned the order."""
    texts = []
    for start in range(documents):
        text = "".join(LETTERS[(start + i) % len(LETTERS)] for i in range(letters))
        texts.append(json.dumps({"text": text}))
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


SMALL: dict[str, Any] = {
    "model.threads": 1,
    "model.device": "cpu",
    "corpus.heldout_fraction": 0.0,
    "corpus.development_fraction": 0.0,
    "corpus.min_tokens": 20,
    "prompt.window": 32,
    "prompt.min_context": 4,
    "prompt.prediction_budget": 4,
    "warmup.steps": 50,
    "warmup.learning_rate": 3e-3,
    "warmup.answer_sharpness": 0.0,
    "warmup.ntp_weight": 0.2,
    "warmup.documents_per_step": 2,
    "warmup.positions_per_document": 8,
    "train.documents_per_step": 2,
    "train.positions_per_document": 4,
    "train.group_size": 4,
    "train.eval_every": 0,
}


def tiny_config(folder: Path, **overrides: Any) -> Config:
    """A config of a run in `folder/run`; overrides as `train__steps=6`. Makes the model and the
    corpus in `folder` where they are not there."""
    model, corpus = folder / "model", folder / "corpus.jsonl"
    if not model.is_dir():
        tiny_model_folder(model)
    if not corpus.is_file():
        periodic_corpus(corpus)
    paths = {"run": str(folder / "run"), "model.path": str(model), "corpus.path": str(corpus)}
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(overrides=paths | SMALL | values)


def tiny_run(folder: Path, **overrides: Any) -> Run:
    """A scored run folder, ready for warmup and train."""
    config = tiny_config(folder, **overrides)
    run = open_run(config, min_free_bytes=0)
    score_corpus(config, run.scored)
    return run


def copied_run(run: Run, name: str, **overrides: Any) -> Run:
    """The run's folder as it stands, under another name and with other settings."""
    folder = run.path.parent
    config = tiny_config(folder, run=str(folder / name), **overrides)
    shutil.copytree(run.path, folder / name)
    return Run(path=folder / name, config=config)
