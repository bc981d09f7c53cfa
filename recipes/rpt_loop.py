r"""Reinforcement pre-training in one file, to be read from top to bottom.

    python recipes/rpt_loop.py --model FOLDER --text FILE --steps 20

FOLDER: any causal model of transformers with a byte-level BPE tokenizer, such as RUN/warmup.

At a position of the text the policy thinks, then predicts what comes next:

    … the sum of two<think> even | odd | numbers</think>\n\boxed{ even}<end of turn>
    └── prefix ────┘└ tail ┘└── seed ─────────┘└── forced close ─┘└── sampled ────┘

The seed holds the policy's own three most probable next tokens. The reward is 1 if the bytes in
the box equal the true next token (or the next few), else 0. Rollouts of a position are compared
with one another (GRPO), and what did better than its group becomes more probable.

Every sequence is computed alone, so a step costs many times what it must: the package computes
the same on the document tree (tests/rl/test_recipe.py compares the two). The method: arXiv
2506.08007; the seed, the cold start and the plain loss beside it are ours.
"""

import argparse
import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

# ---- Bytes: what each token stands for, what a completion predicts, what that earns ------------


def special_ids(tokenizer) -> set[int]:
    added = tokenizer.added_tokens_decoder.items()
    return {i for i, token in added if token.special} | set(tokenizer.all_special_ids)


def byte_table(tokenizer) -> list[bytes]:
    """The exact bytes of each token; b"" for special tokens. In byte-level BPE each character of
    a token stands for one byte: printable ones for themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(0x100 + n): byte for n, byte in enumerate(others)}
    vocabulary, special = tokenizer.get_vocab(), special_ids(tokenizer)
    table = [b""] * (max(vocabulary.values()) + 1)
    for piece, i in vocabulary.items():
        if i not in special:
            known = all(character in byte_of for character in piece)
            table[i] = bytes(byte_of[c] for c in piece) if known else piece.encode()
    return table


def extract_prediction(completion: bytes) -> bytes | None:
    """What stands in the last box after the thought, to the byte. A box that ends the completion
    holds all up to its last brace, so that braces can be predicted; any other ends at the brace
    that balances it."""
    _, thought_end, answer = completion.rpartition(b"</think>")
    _, box, content = answer.rpartition(b"\\boxed{")
    if not (thought_end and box):
        return None
    content = content.rstrip()
    end = len(content) - 1
    if not content.endswith(b"}"):
        depths = accumulate((byte == ord("{")) - (byte == ord("}")) for byte in content)
        end = next((n for n, depth in enumerate(depths) if depth < 0), -1)
    return content[:end] if end > 0 else None


def prefix_match(prediction: bytes | None, continuation: Sequence[bytes]) -> float:
    """1.0 if the prediction is a whole number k ≥ 1 of the true next tokens (Eq. 3), else 0.0."""
    boundaries = {b"".join(continuation[:k]) for k in range(1, len(continuation) + 1)} - {b""}
    return float(prediction in boundaries)


# ---- Positions, prompts and rollouts ------------------------------------------------------------


def make_form(tokenizer, args) -> SimpleNamespace:
    """The ids around a prefix and a prediction, and how long a rollout may be, in tokens."""
    texts = {"think": "<think>", "separator": " |", "close": "</think>\n\\boxed{", "end": "}"}
    ids = {k: tokenizer(v, add_special_tokens=False)["input_ids"] for k, v in texts.items()}
    # A thought's delimiter that is one token is masked too, special or not: text has neither.
    ends = [ids["think"], tokenizer("</think>", add_special_tokens=False)["input_ids"]]
    delimiters = {end[0] for end in ends if len(end) == 1}
    special, stop = sorted(special_ids(tokenizer) | delimiters), tokenizer.eos_token_id
    return SimpleNamespace(**ids, special=special, stop=stop, free=args.think, box=args.prediction)


@torch.no_grad()
def hard_positions(model, ids: list[int], first: int, least: float, k: int, special: list[int]):
    """{t: its k candidates} where token t ≥ `first` is hard to predict: `least` nats of entropy or
    more over the 16 most probable next tokens. (The paper asks a frozen model, here the policy.)"""
    logits = model(torch.tensor([ids])).logits[0]  # [T, V]; row t − 1 predicts token t
    top = logits.topk(16).values.log_softmax(-1)
    entropy = -(top.exp() * top).sum(-1)
    logits[:, special] = float("-inf")  # text holds no special token: never a candidate
    candidates = logits.topk(k).indices.tolist()
    return {t: candidates[t - 1] for t in range(first, len(ids)) if entropy[t - 1] >= least}


def make_prompt(prefix: list[int], candidates: list[int], form) -> list[int]:
    """prefix, `<think>`, and the seed `c1 | c2 | c3`."""
    seed = [i for candidate in candidates for i in [*form.separator, candidate]]
    return prefix + form.think + seed[len(form.separator) :]


@torch.no_grad()
def roll_out(model, prompt: list[int], group_size: int, form) -> tuple[Tensor, Tensor]:
    """`group_size` completions of a prompt: ids [G, n] and which of them were sampled [G, n].

    Free thinking up to its budget (0 = the seed is the whole thought), then the forced close, then
    the prediction. After its stop token a row holds padding that nothing reads.
    """
    new = torch.tensor([prompt]).expand(group_size, -1)
    alive, cache = torch.ones(group_size, dtype=torch.bool), None
    ids, sampled = [], []
    for forced in [None] * form.free + form.close + [None] * form.box:
        out = model(new, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        if forced is None:
            token = torch.multinomial(out.logits[:, -1].softmax(-1), 1)[:, 0]
        else:
            token = torch.full((group_size,), forced)
        ids.append(token)
        sampled.append(alive & (forced is None))
        alive = alive & ~((token == form.stop) & (forced is None))
        new = token[:, None]
    return torch.stack(ids, 1), torch.stack(sampled, 1)


def read_prediction(seed: list[int], row: list[int], table: list[bytes], stop: int):
    own = row[: row.index(stop)] if stop in row else row
    return extract_prediction(b"".join(table[i] for i in seed + own if i < len(table)))


# ---- Learning -----------------------------------------------------------------------------------


def group_advantages(rewards: Tensor) -> Tensor:
    """[G] rewards of one position → how much better each rollout did, in standard deviations."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)


def completion_logprobs(model, prompt: list[int], ids: Tensor) -> Tensor:
    """log p of each token of the completions [G, n], one whole sequence a row."""
    whole = torch.cat([torch.tensor([prompt]).expand(len(ids), -1), ids], dim=1)
    logits = model(whole, use_cache=False).logits[:, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def policy_loss(logprobs: Tensor, advantages: Tensor, sampled: Tensor) -> Tensor:
    """GRPO: the sum over rollouts of the mean over their sampled tokens of −ratio · advantage.
    With one update a batch the ratio is 1 and no clip acts: it is here for its gradient."""
    ratio = (logprobs - logprobs.detach()).exp()
    loss = -(ratio * advantages[:, None] * sampled).sum(1) / sampled.sum(1).clamp_min(1)
    return loss.sum()


def imitate(model, prompts: dict[int, list[int]], found: dict[int, list[int]], form):
    """The cold start teaches the form alone: copy the first candidate, close the box, stop."""
    total = 0.0
    for t, prompt in prompts.items():
        answer = [found[t][0], *form.end, form.stop]
        logprobs = completion_logprobs(model, prompt, torch.tensor([form.close + answer]))
        loss = -logprobs[0, -len(answer) :].mean() / len(prompts)
        loss.backward()
        total += loss.item()
    return {"imitation": total}


def reinforce(model, prompts, seeds, truths, table, group_size: int, form):
    """Rollouts, rewards and gradients; the means of the step."""
    earned, flat = [], 0
    for t, prompt in prompts.items():
        ids, sampled = roll_out(model, prompt, group_size, form)
        said = [read_prediction(seeds[t], row, table, form.stop) for row in ids.tolist()]
        rewards = torch.tensor([prefix_match(prediction, truths[t]) for prediction in said])
        earned += rewards.tolist()
        if rewards.min() == rewards.max():  # a flat group: nothing to compare, no gradient
            flat += 1
            continue
        logprobs = completion_logprobs(model, prompt, ids)
        loss = policy_loss(logprobs, group_advantages(rewards), sampled)
        (loss / (len(prompts) * group_size)).backward()
    print("  thought", b"".join(table[i] for i in seeds[t]), "box", said[0], "truth", truths[t][0])
    return {"reward": sum(earned) / len(earned), "flat": flat / len(prompts)}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    args = parse(arguments)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    table, form = byte_table(tokenizer), make_form(tokenizer, args)
    text = Path(args.text).read_bytes()
    text_ids = tokenizer(text.decode(), add_special_tokens=False)["input_ids"]
    if b"".join(table[i] for i in text_ids) != text:
        raise SystemExit(f"{args.text}: this tokenizer's tokens do not give the text's bytes back")
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99))
    history = []
    for step in range(1, args.warmup + args.steps + 1):
        start = rng.randrange(max(1, len(text_ids) - args.window))
        window = text_ids[start : start + args.window]
        found = hard_positions(model, window, 16, args.entropy, args.candidates, form.special)
        chosen = sorted(rng.sample(sorted(found), min(args.positions, len(found))))
        if not chosen:
            raise SystemExit(f"no position has an entropy of {args.entropy} nats: lower --entropy")
        prompts = {t: make_prompt(window[:t], found[t], form) for t in chosen}
        if step <= args.warmup:
            metrics = imitate(model, prompts, found, form)
        else:
            seeds = {t: prompts[t][t + len(form.think) :] for t in chosen}
            truths = {t: [table[i] for i in text_ids[start + t :][:64]] for t in chosen}
            metrics = reinforce(model, prompts, seeds, truths, table, args.group_size, form)
        # The plain next-token loss beside it keeps the model's language, and improves it.
        ids = torch.tensor(window)
        loss = F.cross_entropy(model(ids[None, :-1]).logits[0], ids[1:])
        (args.ntp * loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        history.append({"step": step, **metrics, "ntp": loss.item(), "gradient": norm.item()})
        print("  ".join(f"{name} {value:.4g}" for name, value in history[-1].items()), flush=True)
    return history


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Reinforcement pre-training in one file.")
    add = parser.add_argument
    add("--model", required=True, help="model folder (safetensors, byte-level BPE)")
    add("--text", required=True, help="text file, UTF-8")
    add("--warmup", type=int, default=10, help="steps of the cold start")
    add("--steps", type=int, default=50, help="steps of reinforcement after it")
    add("--window", type=int, default=256, help="tokens of text in a step")
    add("--positions", type=int, default=8, help="positions in a step")
    add("--entropy", type=float, default=0.5, help="least top-16 entropy of a position, nats")
    add("--candidates", type=int, default=3, help="candidates that seed a thought")
    add("--group-size", type=int, default=8, help="rollouts of a position")
    add("--think", type=int, default=0, help="free tokens of thought after the seed")
    add("--prediction", type=int, default=6, help="tokens after the thought, the brace included")
    add("--lr", type=float, default=2e-5, help="learning rate of AdamW")
    add("--ntp", type=float, default=0.5, help="weight of the plain next-token loss")
    add("--seed", type=int, default=0, help="of every random choice")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
