"""Loading a model: what is not what its files say is refused on one line, by name."""

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from openrpt.config.loading import load_config
from openrpt.config.model import ModelConfig
from openrpt.engine import cpu
from openrpt.engine.branches import Branch
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model, load_tokenizer, outline, pick_device
from openrpt.engine.model import Model
from openrpt.errors import UserError
from tests.helpers.tiny import byte_level_tokenizer
from tests.helpers.tiny_model import tiny_model_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TRAINERS = ("tree", "flat")
IDS = [(7 * i + 3) % 390 for i in range(30)]

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("good") / "m")


def load(folder: Path, trainer: str = "tree", *, recompute: bool = False, **model: Any) -> Model:
    config = ModelConfig(**{"threads": 1, "device": "cpu"} | model)
    return load_model(config, path=str(folder), trained=True, recompute=recompute, trainer=trainer)


def changed(good: Path, folder: Path, change: Change) -> Path:
    shutil.copytree(good, folder)
    change(folder)
    return folder


def settings(file: str, **new: Any) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(values | new))

    return change


def config(**new: Any) -> Change:
    return settings("config.json", **new)


def content(file: str, data: bytes | str) -> Change:
    return lambda folder: (folder / file).write_bytes(
        data if isinstance(data, bytes) else data.encode()
    )


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Changes the header of the weight file and leaves its data."""

    def rewrite(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        values = json.loads(data[8 : 8 + size])
        change(values)
        text = json.dumps(values).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return rewrite


def sharded(name: Callable[[str], str], **more: Any) -> Change:
    """The weights in a file of another name, and an index in which `name` gives each tensor's."""

    def change(folder: Path) -> None:
        keys = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "part.safetensors")
        index = {"metadata": {}, "weight_map": {key: name(key) for key in keys}} | more
        (folder / INDEX).write_text(json.dumps(index))

    return change


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Change:
    def rewrite(folder: Path) -> None:
        values = json.loads((folder / "tokenizer.json").read_text())
        change(values)
        (folder / "tokenizer.json").write_text(json.dumps(values))

    return rewrite


def with_tokens(*, ordinary: tuple[str, ...] = (), **special: str) -> Change:
    """A tokenizer with more tokens than the model has rows."""

    def rewrite(folder: Path) -> None:
        longer = byte_level_tokenizer()
        longer.add_tokens(list(ordinary))
        longer.add_special_tokens(special)
        longer.save_pretrained(folder)

    return rewrite


MLP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123456\n"

REFUSED: dict[str, tuple[Change, str]] = {
    # config.json asks for what the files don't hold
    "hidden size": (config(hidden_size=10**9), "asks for a larger model than the weights'"),
    "hidden size 1e30": (config(hidden_size=10**30), "can't be loaded"),
    "hidden size < 0": (config(hidden_size=-5), "can't be loaded"),
    "hidden size x": (config(hidden_size="x"), "hidden_size"),
    "hidden size 0": (config(hidden_size=0), "by config.json"),
    "head size": (config(head_dim=10**9), "asks for a larger model"),
    "MLP": (config(intermediate_size=10**9), "asks for a larger model"),
    "vocabulary": (config(vocab_size=10**9), "asks for a larger model"),
    "vocabulary 0": (config(vocab_size=0), r"embed_tokens.weight is \[396, 64\] in the files"),
    "vocabulary + 1": (config(vocab_size=397), r"\[396, 64\] in the files and \[397, 64\] by"),
    "heads 0": (config(num_attention_heads=0), "can't be loaded: ZeroDivisionError"),
    "100,000 layers": (config(num_hidden_layers=10**5), "but the weights are 20 tensors in all"),
    "1e30 layers": (config(num_hidden_layers=10**30), "but the weights are 20 tensors in all"),
    "3 layers": (config(num_hidden_layers=3), r"lack 9 tensors \(model.layers.2.input_layer"),
    "1 layer": (config(num_hidden_layers=1), r"hold 9 tensors \(model.layers.1.input_layer"),
    "another type": (config(model_type="gpt2"), r"lack \d+ tensors"),
    "no type": (config(model_type="nonsense"), "nonsense"),
    "untied": (config(tie_word_embeddings=False), r"lack 1 tensor \(lm_head.weight\)"),
    "list": (content("config.json", "[]"), "not a JSON object"),
    "nested": (content("config.json", "[" * 100_000), "RecursionError"),
    "bytes": (content("config.json", b"\xff\xfe"), "can't be loaded"),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "optimum"),
    "adapter": (content("adapter_config.json", "{}"), "holds a LoRA adapter"),
    "labels": (config(num_labels=10**6), "num_labels = 1000000, but a language model has no"),
    "attribute map": (config(attribute_map="x"), "can't be loaded: AttributeError"),
    "no number": (
        config(rope_parameters={"rope_type": "default", "rope_theta": float("nan")}),
        "NaN",
    ),
    # generation_config.json
    "eos x": (settings("generation_config.json", eos_token_id="x"), "eos_token_id = 'x'"),
    "eos [[1]]": (settings("generation_config.json", eos_token_id=[[1]]), "no token id"),
    "generation list": (content("generation_config.json", "[]"), "can't be loaded"),
    # weight files
    "LFS": (content(WEIGHTS, LFS), "SafetensorError"),
    "empty": (content(WEIGHTS, ""), "SafetensorError"),
    "header 0": (content(WEIGHTS, struct.pack("<Q", 0) + b"{}"), "SafetensorError"),
    "header 2^60": (content(WEIGHTS, struct.pack("<Q", 2**60) + b"{}"), "SafetensorError"),
    "offsets": (header(lambda h: h[MLP].update(data_offsets=[0, 4])), "SafetensorError"),
    "shape": (header(lambda h: h[MLP].update(shape=[2**40, 2**40])), "SafetensorError"),
    "outside": (sharded(lambda _: "../../etc/passwd"), "outside of it, '../../etc/passwd'"),
    "absolute": (sharded(lambda _: "/etc/passwd"), "outside of it, '/etc/passwd'"),
    "no shard": (sharded(lambda _: "other.safetensors"), "other.safetensors"),
    "no map": (sharded(str, weight_map=[]), "names no files"),
    "metadata": (sharded(lambda _: "part.safetensors", metadata=3), "can't be loaded"),
    "missing": (weights(lambda w: w.pop(MLP)), rf"lack 1 tensor \({MLP}\)"),
    "surplus": (weights(lambda w: w.update(x=torch.ones(1))), r"hold 1 tensor \(x\) that"),
    "NaN": (weights(lambda w: w[MLP].__setitem__((3, 3), torch.nan)), rf"NaN in the .*{MLP}"),
    "infinity": (weights(lambda w: w[MLP].mul_(torch.inf)), "in the weights"),
    "integers": (
        weights(lambda w: w.update({k: (9 * v).to(torch.int8) for k, v in w.items()})),
        r"weight holds whole numbers \(I8\)",
    ),
    "overflow": (weights(lambda w: w["model.norm.weight"].fill_(1e38)), "infinity as logits"),
    # the tokenizer
    "newer": (tokenizer(lambda t: t["model"].update(type="FutureBPE")), "can't be loaded"),
    "merges": (tokenizer(lambda t: t["model"].update(merges=[["a", "no"]])), "can't be loaded"),
    "huge id": (tokenizer(lambda t: t["model"]["vocab"].update(z=10**9)), "id 1000000000"),
    "deep tokenizer": (content("tokenizer.json", "[" * 100_000), "RecursionError"),
    "length": (settings("tokenizer_config.json", model_max_length="x"), "can't be used"),
    "ordinary": (with_tokens(ordinary=("<tool>",)), "'<tool>' has id 396, but the model has 396"),
    "eos beyond": (with_tokens(eos_token="<|new|>"), "'<|new|>' has id 396"),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("case", "trainer"),
    [*((case, "tree") for case in REFUSED), ("NaN", "flat"), ("overflow", "flat")],
)
def test_a_folder_that_is_not_what_it_says_is_one_line(good, tmp_path, case, trainer):
    change, message = REFUSED[case]
    folder = changed(good, tmp_path / "bad", change)
    with pytest.raises(UserError, match=message) as caught:
        load(folder, trainer)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["newer", "huge id", "100,000 layers", "nested"])
def test_the_tokenizer_alone_is_refused_alike(good, tmp_path, case):
    folder = changed(good, tmp_path / "bad", REFUSED[case][0])
    with pytest.raises(UserError):
        tokens = load_tokenizer(ModelConfig(), str(folder))
        assert Model(network=None, tokenizer=tokens, name="bad").table


@pytest.mark.parametrize("case", ["hidden size", "100,000 layers", "nested", "list", "newer"])
def test_an_outline_is_refused_alike(good, tmp_path, case):
    folder = changed(good, tmp_path / "bad", REFUSED[case][0])
    with pytest.raises(UserError, match=REFUSED[case][1].replace("loaded", "outlined")):
        outline(load_config(overrides={"model.path": str(folder)}))


TAKEN: dict[str, Change] = {
    "sharded": sharded(lambda _: "part.safetensors"),
    "tied head": weights(lambda w: w.update({"lm_head.weight": w[EMBEDDING].clone()})),
    "rotary": weights(
        lambda w: w.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    ),
    "older prefix": weights(lambda w: [w.update({f"model.{k}": w.pop(k)}) for k in list(w)]),
    "no metadata": header(lambda h: h.pop("__metadata__")),
    "its own attention": config(attn_implementation="flex_attention"),
    "more positions": config(max_position_embeddings=10**12),
    "pad without a row": with_tokens(pad_token="[PAD]"),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("case", TAKEN)
def test_what_differs_without_harm_is_taken(good, tmp_path, case, trainer):
    expected = load(good).causal_lm(torch.tensor([IDS])).logits
    policy = load(changed(good, tmp_path / "m", TAKEN[case]), trainer)
    assert torch.equal(policy.causal_lm(torch.tensor([IDS])).logits, expected)
    assert policy.masked_ids().sum() == 2  # <|im_start|>, <|im_end|>


def test_a_gap_in_the_vocabulary_is_never_predicted(good, tmp_path):
    """An id that no token has: the model has a row for it, which says nothing."""

    def without_one(spec):
        model = spec["model"]
        gone = next(piece for piece, i in model["vocab"].items() if i == 390)
        del model["vocab"][gone]
        pairs = (m if isinstance(m, list) else m.split(" ") for m in model["merges"])
        model["merges"] = [p for p in pairs if gone not in (*p, "".join(p))]

    policy = load(changed(good, tmp_path / "m", tokenizer(without_one)))
    assert policy.masked_ids().nonzero()[:, 0].tolist() == [0, 1, 390]


def test_an_adapters_folder_is_no_model(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds a LoRA adapter.*merge_and_unload"):
        load(folder)


def test_buffers_that_older_files_hold_are_taken(tmp_path):
    """GPT-2's causal mask was once saved with the weights."""
    folder = tiny_model_folder(tmp_path / "m", family="gpt2")
    tensors = load_file(folder / WEIGHTS)
    mask = torch.ones(128, 128).tril()[None, None].bool()
    tensors |= {f"transformer.h.{i}.attn.bias": mask.clone() for i in range(2)}
    tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    load(folder)


FAMILIES = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "gemma2": {"head_dim": 16, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 0.5},
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_scale_or_cap_of_the_logits_is_the_models_own(tmp_path, family, trainer):
    options = FAMILIES[family] | {"initializer_range": 0.3}
    folder = tiny_model_folder(tmp_path / "m", family=family, **options)
    engine = bind(trainer, load(folder, trainer))
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    (hidden,) = engine.states([IDS])
    own = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    assert (engine.model.head.logits(hidden).log_softmax(-1) - own).abs().max() < 1e-4


LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}


def test_what_only_the_tree_cannot_share_names_the_way_out(tmp_path):
    folder = tiny_model_folder(tmp_path / "m", family="deepseek_v3", **LATENT)
    with pytest.raises(UserError, match=r"'deepseek_v3' can't be run in the tree.*trainer flat"):
        load(folder)
    load(folder, "flat")


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("hyperclovax", {"logits_scaling": 8.0}, "between its last layer and its logits"),
        ("bert", {"tie_word_embeddings": True}, "reads later tokens, too"),
    ],
)
def test_a_head_that_is_not_known_is_refused(tmp_path, family, options, message, trainer):
    options = options | {"initializer_range": 0.3}
    folder = tiny_model_folder(tmp_path / "m", family=family, **options)
    with pytest.raises(UserError, match=f"type '{family}'.*{message}"):
        load(folder, trainer)


OPT = {"ffn_dim": 128, "word_embed_proj_dim": 64, "dropout": 0.5, "attention_dropout": 0.5}


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_no_dropout_with_recomputed_activations(tmp_path, family):
    options = OPT if family == "opt" else {"attention_dropout": 0.5}
    folder = tiny_model_folder(tmp_path / "m", family=family, **options)
    branch = Branch(prefix_length=9, tail_ids=(4, 5), completions=((6, 7, 8),))
    gradients = []
    for recompute in (False, True, True):
        engine = bind("tree", load(folder, recompute=recompute))
        engine.accumulate_gradients(
            IDS, [branch], completion_loss=lambda rows, hidden: hidden.sin().sum()
        )
        gradients.append([p.grad for p in engine.model.parameters() if p.grad is not None])
    assert any(gradient.any() for gradient in gradients[0])
    for other in gradients[1:]:
        for expected, found in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(found, expected)


def test_recomputed_activations_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("openrpt.engine.model.saved_sparingly", nullcontext)  # only one hook counts
    kept = []
    for recompute in (False, True):
        folder = tmp_path / str(recompute)
        engine = bind("tree", load(tiny_model_folder(folder), recompute=recompute))
        sizes: list[int] = []
        pack = lambda t, sizes=sizes: sizes.append(t.numel()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            engine.states([IDS])
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_threads_beyond_the_machine_are_refused():
    with pytest.raises(UserError, match=r"model\.threads = 100000, but this machine has"):
        cpu.set_threads(100_000)
    with pytest.raises(UserError, match=r"model\.threads = 10000000000"):
        cpu.set_threads(10**10)


def test_loading_sets_nothing_of_the_process(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load(tiny_model_folder(tmp_path / "model"), threads=1)
        assert torch.get_num_threads() == 2
        cpu.use_cpu(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99", ""])
def test_a_device_that_does_not_compute_is_refused(name):
    with pytest.raises(UserError, match=f"model.device = '{name}' is not usable here"):
        pick_device(name)
