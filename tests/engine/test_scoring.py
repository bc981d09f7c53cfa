"""Scores against a naive pass; shards, restarts, alignment and errors, with tiny random models."""

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from openrpt.config.loading import validate_config, with_overrides
from openrpt.config.sections import Config
from openrpt.data.positions import windows
from openrpt.data.score_summary import SCORED
from openrpt.data.scored import load_scored
from openrpt.data.tokens import encode_document, token_bytes
from openrpt.engine.engine import Engine, bind
from openrpt.engine.model import Model
from openrpt.engine.scorer import Scores, align, aligned_scores, score_documents, score_ids
from openrpt.engine.tree.attention import NAME
from openrpt.errors import UserError
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import Run, open_run
from openrpt.runs.scores import scores_of
from openrpt.runs.spent import SCORING_COST
from openrpt.stages.score.score import score_corpus
from openrpt.stages.score.scores import grade_predictions
from tests.helpers import families
from tests.helpers.families import tiny_policy
from tests.helpers.tiny import TEXT, byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

WORDS = " ".join(TEXT).split()
COLUMNS = [
    "document_id",
    "position",
    "token_id",
    "byte_offset",
    "negative_log_likelihood",
    "entropy",
    "entropy_top16",
    "ntp_token_id",
    "ntp_correct",
]


def policy_of(tokenizer: Any, family: str = "llama", dtype: torch.dtype = torch.float64) -> Model:
    """A tiny model with a tokenizer, and five rows that no token has."""
    with patch.dict(families.COMMON, vocab_size=len(tokenizer) + 5):
        policy = tiny_policy(family, dtype)
    policy.tokenizer = tokenizer
    return policy


def tree(policy: Model) -> Engine:
    return bind("tree", policy)


def with_bos(tokenizer: Any) -> Any:
    bos = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )
    return tokenizer


def text_of(seed: int, words: int = 20) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


def write_corpus(folder: Path, texts: list[str]) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def config_of(corpus: Path, **values: Any) -> Config:
    settings: dict[str, Any] = {
        "corpus": {"path": str(corpus)},
        "prompt": {"window": 48, "min_context": 8},
        "score": {"shard_tokens": 1000},
    }
    for dotted, value in values.items():
        section, key = dotted.split("__")
        settings[section][key] = value
    return validate_config(settings, source="test")


@pytest.fixture(scope="module")
def policy() -> Model:
    return policy_of(byte_level_tokenizer())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path, [text_of(seed, words=5 + 2 * seed) for seed in range(50)])


@torch.no_grad()
def naive(policy: Model, ids: list[int]) -> dict[str, Any]:
    """What transformers' own logits say of the last of these ids."""
    policy.network.set_attn_implementation("eager")  # the one that applies gemma2's soft cap
    logits = policy.network(torch.tensor([ids[:-1]]), use_cache=False).logits[0, -1].double()
    policy.network.set_attn_implementation(NAME)
    p = logits.softmax(-1)
    top = p.topk(16).values
    top = top / top.sum()
    allowed = logits.clone()
    allowed[[*policy.table.special_ids]] = -torch.inf
    allowed[len(policy.tokenizer) :] = -torch.inf
    return {
        "negative_log_likelihood": -p[ids[-1]].log().item(),
        "entropy": -(p * p.log()).sum().item(),
        "entropy_top16": -(top * top.log()).sum().item(),
        "argmax": allowed.argmax().item(),
    }


def assert_naive(scores: Scores, position: int, expected: dict[str, Any]) -> None:
    for name in ("negative_log_likelihood", "entropy", "entropy_top16"):
        assert getattr(scores, name)[position] == pytest.approx(expected[name], abs=1e-5)
    assert scores.argmax[position] == expected["argmax"]


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3", "gpt_neox"])
def test_scores_equal_a_naive_forward_pass(family):
    policy = policy_of(byte_level_tokenizer(), family)
    ids, _ = encode_document(policy.tokenizer, text_of(1, words=12))
    scores = score_ids(tree(policy), ids, window=64, min_context=8)
    assert np.isnan(scores.entropy[0]) and scores.argmax[0] == -1  # nothing stands before it
    for position in range(1, len(ids)):
        assert_naive(scores, position, naive(policy, ids[: position + 1]))


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_windows_score_each_position_from_its_own_window(tree, bos):
    tokenizer = byte_level_tokenizer()
    policy = policy_of(with_bos(tokenizer) if bos else tokenizer)
    head = list(policy.bos_ids)
    assert len(head) == bos
    ids, _ = encode_document(tokenizer, text_of(2, words=40))
    if not tree:
        policy.attention = "sdpa"
    scores = score_ids(bind("tree" if tree else "flat", policy), ids, window=24, min_context=8)
    spans = windows(len(ids), window=24, min_context=8)
    assert len(spans) > 3
    for number, span in enumerate(spans):
        for position in range(span.first if number else 1 - bos, span.end):
            assert_naive(scores, position, naive(policy, [*head, *ids[span.start : position + 1]]))


def test_chunks_of_logits_change_nothing(policy):
    ids, _ = encode_document(policy.tokenizer, text_of(3))
    whole = score_ids(tree(policy), ids, window=256, min_context=8)
    with patch("openrpt.engine.head.CHUNK_ELEMENTS", 7 * policy.head.weight.shape[0]):
        chunked = score_ids(tree(policy), ids, window=256, min_context=8)
    np.testing.assert_allclose(chunked.entropy, whole.entropy, atol=1e-6)
    assert chunked.argmax.tolist() == whole.argmax.tolist()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
@pytest.mark.parametrize("pack_tokens", [1, 50, 1000])
def test_documents_side_by_side_are_scored_as_alone(family, pack_tokens):
    policy = policy_of(with_bos(byte_level_tokenizer()), family)
    documents = [encode_document(policy.tokenizer, text_of(n, words=9 * n))[0] for n in (3, 1, 2)]
    heard: list[float] = []
    with patch("openrpt.engine.scorer.PACK_TOKENS", pack_tokens):
        together = score_documents(
            tree(policy), documents, window=24, min_context=8, scored=heard.append
        )
    assert heard == sorted(heard) and heard[-1] == 1
    for ids, scores in zip(documents, together, strict=True):
        alone = score_ids(tree(policy), ids, window=24, min_context=8)
        for name in ("negative_log_likelihood", "entropy", "entropy_top16"):
            np.testing.assert_allclose(getattr(scores, name), getattr(alone, name), rtol=1e-6)
        assert scores.argmax.tolist() == alone.argmax.tolist()


def test_a_corpus_is_scored_and_read_back(tmp_path, corpus, policy):
    seen: list[int] = []
    summary = score_corpus(
        config_of(corpus),
        tmp_path / "scored",
        policy=tree(policy),
        progress=lambda tokens, text: seen.append(tokens),
    )
    assert seen == sorted(seen) and seen[-1] == summary.num_tokens
    scored = load_scored(tmp_path / "scored")
    assert scored.metadata["scorer"] == policy.name
    assert scored.metadata["corpus"]["documents"] == 50
    texts = {json.loads(line)["text"] for line in corpus.read_text().splitlines()}
    count = right = 0
    for split in ("train", "development", "heldout"):
        for document_id in scored.ids(split):
            document = scored.document(document_id)
            assert document.split == split and document.text in texts
            ids, pieces = encode_document(policy.tokenizer, document.text)
            assert document.token_ids.tolist() == ids
            direct = score_ids(tree(policy), ids, window=48, min_context=8)
            # Documents share a pass here: the same but for rounding.
            np.testing.assert_allclose(document.entropy, direct.entropy, rtol=1e-6)
            np.testing.assert_allclose(document.entropy_top16, direct.entropy_top16, rtol=1e-6)
            assert document.ntp_token_id.tolist() == direct.argmax.tolist()
            predicted = token_bytes(policy.tokenizer, direct.argmax[1:], at_start=False)
            graded = [prefix_match(one, pieces[t:]) for t, one in enumerate(predicted, start=1)]
            assert document.ntp_correct.tolist() == [False, *map(bool, graded)]
            count += 1
            right += document.ntp_correct.sum()
    assert right > 0
    assert count == summary.documents == 50 - summary.skipped_short
    assert summary.shards > 2 and summary.skipped_short > 0


def test_the_parquet_files_say_what_they_are(tmp_path, corpus, policy):
    score_corpus(config_of(corpus), tmp_path / "scored", policy=tree(policy))
    table = pq.read_table(tmp_path / "scored" / "positions-00000.parquet")
    assert table.column_names == COLUMNS
    metadata = table.schema.metadata
    assert json.loads(metadata[b"openrpt.scorer"]) == policy.name
    for key in ("tokenizer", "corpus_hash", "settings"):
        assert f"openrpt.{key}".encode() in metadata
    documents = pq.read_table(tmp_path / "scored" / "documents-00000.parquet").to_pylist()
    names = {"document_id", "key", "split", "source", "text", "kind", "offsets", "num_tokens"}
    assert documents[0].keys() == names
    rows = table.to_pylist()
    assert len(rows) == sum(document["num_tokens"] for document in documents) >= 1000
    assert [row["position"] for row in rows[: documents[0]["num_tokens"]]] == list(
        range(documents[0]["num_tokens"])
    )
    for name in COLUMNS[4:]:
        assert rows[0][name] is None and rows[1][name] is not None
    text = documents[0]["text"].encode()
    for row, following in pairwise(rows[: documents[0]["num_tokens"]]):
        piece = policy.table.bytes[row["token_id"]]
        assert text[row["byte_offset"] : following["byte_offset"]] == piece


def test_byte_equal_predictions_of_other_ids_are_right(policy):
    # " the" may come as one token or as two: the bytes decide, as for the reward.
    pieces = [b" the", b" e", b"nd"]
    assert grade_predictions([b" the", b" e", b"n"], pieces).tolist() == [True, True, False]
    assert grade_predictions([b" the e", b" end", b""], pieces).tolist() == [True, True, False]


def files_of(folder: Path) -> dict[str, bytes]:
    """All but what scoring took."""
    paths = sorted(folder.iterdir())
    return {path.name: path.read_bytes() for path in paths if path.name != SCORING_COST}


def test_a_restart_gives_identical_files(tmp_path, corpus, policy):
    config = config_of(corpus)
    whole = tmp_path / "whole"
    summary = score_corpus(config, whole, policy=tree(policy))
    assert summary.shards >= 3

    class Stop(Exception):
        pass

    def stop_at(limit: int):
        def progress(tokens: int, text: str) -> None:
            if tokens >= limit:
                raise Stop

        return progress

    broken = tmp_path / "broken"
    for limit in (500, 1500, 2500):
        with pytest.raises(Stop):
            score_corpus(config, broken, policy=tree(policy), progress=stop_at(limit))
        with pytest.raises(UserError, match=r"no(t finished| scores)"):
            load_scored(broken)
    assert (broken / "documents-00001.parquet").exists()
    seen: list[int] = []
    hear = lambda tokens, text: seen.append(tokens)  # noqa: E731
    score_corpus(config, broken, policy=tree(policy), progress=hear)
    assert seen[0] >= 2000  # goes on, and does not begin again
    assert files_of(broken) == files_of(whole)

    # A pair counts only when both are there, and nothing behind a gap does.
    last = summary.shards - 1
    for name in (f"documents-{last:05}.parquet", "positions-00001.parquet"):
        (broken / name).unlink()
        (broken / "positions-00077.parquet").write_bytes(b"an old half")
        assert score_corpus(config, broken, policy=tree(policy)) == summary
        assert files_of(broken) == files_of(whole)
    # Nothing to do: nothing is loaded, nothing is scored.
    again = score_corpus(config_of(corpus), whole, policy=tree(policy), progress=stop_at(0))
    assert again == summary


def test_max_tokens_and_splits(tmp_path, corpus, policy):
    config = config_of(corpus, score__max_tokens=200, score__splits=["train", "heldout"])
    summary = score_corpus(config, tmp_path / "scored", policy=tree(policy))
    assert set(summary.tokens) == {"train", "heldout"}
    scored = load_scored(tmp_path / "scored")
    for split, tokens in summary.tokens.items():
        last = scored.document(scored.ids(split)[-1])
        assert 200 <= tokens < 200 + last.num_tokens  # whole documents
    assert scored.ids("development") == []
    assert summary.documents_read < 50  # the corpus is left once the splits are full


def test_other_settings_and_another_corpus_are_refused(tmp_path, corpus, policy):
    folder = tmp_path / "scored"
    score_corpus(config_of(corpus), folder, policy=tree(policy))
    other = config_of(corpus, prompt__window=32)
    with pytest.raises(UserError, match=r"prompt\.window was 48, is now 32; use another --run"):
        score_corpus(other, folder, policy=tree(policy))
    with pytest.raises(UserError, match="tokenizer was"):
        other_tokens = policy_of(sentencepiece_tokenizer())
        score_corpus(config_of(corpus), folder, policy=tree(other_tokens))
    last = max(folder.glob("documents-*"))
    last.unlink()
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(UserError, match="the corpus has changed"):
        score_corpus(config_of(corpus), folder, policy=tree(policy))


def test_scores_keep_kinds_and_older_ones_have_none(tmp_path, policy):
    """A folder that knows nothing of kinds is read, and goes on, as one without them."""
    rows = [{"text": text_of(seed, words=40), "level": seed % 3} for seed in range(6)]
    corpus = tmp_path / "levels.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_corpus(config_of(corpus, corpus__kind="level"), tmp_path / "kinds", policy=tree(policy))
    found = load_scored(tmp_path / "kinds")
    assert [found.document(name).kind for name in found.entries] == ["0", "1", "2"] * 2
    folder, config = tmp_path / "older", config_of(corpus)
    summary = score_corpus(config, folder, policy=tree(policy))
    path = folder / "documents-00000.parquet"
    metadata = pq.read_schema(path).metadata
    settings = json.loads(metadata[b"openrpt.settings"])
    for key in ("corpus.kind", "corpus.kind_levels"):
        del settings[key]
    metadata = metadata | {b"openrpt.settings": json.dumps(settings).encode()}
    del metadata[b"sha256"]  # those had none
    pq.write_table(
        pq.read_table(path).drop_columns(["kind"]).replace_schema_metadata(metadata), path
    )
    found = load_scored(folder)
    assert {found.document(name).kind for name in found.entries} == {""}
    assert score_corpus(config, folder, policy=tree(policy)) == summary
    with pytest.raises(UserError, match=r"corpus\.kind was ''"):
        score_corpus(config_of(corpus, corpus__kind="level"), folder, policy=tree(policy))


def test_unusable_documents_are_skipped_and_counted_or_refused(tmp_path):
    policy = policy_of(sentencepiece_tokenizer())
    texts = [text_of(1, 40), "\u2581 is lost " + text_of(2, 40), text_of(3, 40), "short"]
    corpus = write_corpus(tmp_path, texts)
    summary = score_corpus(config_of(corpus), tmp_path / "scored", policy=tree(policy))
    assert (summary.documents, summary.skipped_unencodable, summary.skipped_short) == (2, 1, 1)
    with pytest.raises(UserError, match=r"corpus\.jsonl:2: .* does not give the text back"):
        strict = config_of(corpus, corpus__strict=True)
        score_corpus(strict, tmp_path / "strict", policy=tree(policy))


def test_nothing_left_to_score_is_an_error(tmp_path, policy):
    corpus = write_corpus(tmp_path, ["short", "too short"])
    with pytest.raises(UserError, match=r"of 2 read, 2 are shorter than 32 tokens"):
        score_corpus(config_of(corpus), tmp_path / "scored", policy=tree(policy))


def test_a_window_that_the_scorer_cannot_hold_is_refused(tmp_path, corpus, policy):
    config = config_of(corpus, prompt__window=300)
    with pytest.raises(UserError, match=r"prompt\.window = 300 does not fit.* 256 tokens"):
        score_corpus(config, tmp_path / "scored", policy=tree(policy))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, corpus, policy):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="scored: cannot be written"):
        score_corpus(config_of(corpus), tmp_path / "file" / "scored", policy=tree(policy))


def test_broken_folders_are_named(tmp_path, corpus, policy):
    with pytest.raises(UserError, match="no scores here"):
        load_scored(tmp_path)
    folder = tmp_path / "scored"
    score_corpus(config_of(corpus), folder, policy=tree(policy))
    positions = folder / "positions-00001.parquet"
    whole = positions.read_bytes()
    positions.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"positions-00001\.parquet: broken"):
        load_scored(folder)
    positions.unlink()
    with pytest.raises(UserError, match=r"positions-00001\.parquet is missing"):
        load_scored(folder)
    positions.write_bytes((folder / "positions-00000.parquet").read_bytes())
    with pytest.raises(UserError, match=r"positions-00001\.parquet: broken .* rows where"):
        load_scored(folder)
    positions.write_bytes(whole)
    with pytest.raises(UserError, match="no document 'nobody'"):
        load_scored(folder).document("nobody")
    (folder / SCORED).write_text("{")
    with pytest.raises(UserError, match=r"scored\.json:1: damaged"):
        load_scored(folder)


def test_every_flipped_bit_of_the_scores_is_noticed(tmp_path, corpus, policy):
    """Or stands where nothing is read from: the name of the hash itself."""
    folder = tmp_path / "scored"
    score_corpus(config_of(corpus), folder, policy=tree(policy))

    def everything() -> list[Any]:
        scored = load_scored(folder)
        documents = [scored.document(name) for name in scored.entries]
        return [repr(scored.metadata), repr(documents)]

    rng, before, noticed = random.Random(0), repr(everything()), 0
    files = [folder / SCORED, *sorted(folder.glob("*.parquet"))]
    for file in files:
        whole = file.read_bytes()
        for _ in range(10):
            data = bytearray(whole)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
            try:
                assert repr(everything()) == before
            except UserError as error:
                noticed += 1
                assert str(file) in str(error) and "score again" in str(error)
        file.write_bytes(whole)
    assert repr(everything()) == before and noticed >= 9 * len(files)


def test_other_weights_under_the_same_name_are_refused(tmp_path):
    run = tiny_run(tmp_path)
    assert scores_of(run).ids("train")
    tiny_model_folder(tmp_path / "model", seed=1)
    for again in (lambda: scores_of(run), lambda: score_corpus(run.config, run.scored)):
        with pytest.raises(UserError, match=r"scored: scored with another model than .*model' is"):
            again()
    tiny_model_folder(tmp_path / "model", seed=0)
    assert score_corpus(run.config, run.scored).documents == 12
    shutil.rmtree(tmp_path / "model")  # whoever needs it says so
    assert scores_of(run).ids("train")


def test_another_models_scores_serve_every_policy_of_the_same_tokens(tmp_path):
    """Its weights are none of theirs, only its tokenizer is."""
    scorer = tiny_model_folder(tmp_path / "scorer", seed=3)
    run = tiny_run(tmp_path, score__model=str(scorer))

    def with_policy(folder: Path) -> Run:
        changed = {"model.path": str(folder)}
        return open_run(with_overrides(run.config, changed), min_free_bytes=0)

    same = tiny_model_folder(tmp_path / "same", seed=1)
    assert scores_of(with_policy(same)).ids("train")
    other = tiny_model_folder(tmp_path / "other", tokenizer=byte_level_tokenizer(vocab_size=300))
    with pytest.raises(UserError, match=r"scores in other tokens than those of model\.path = "):
        scores_of(with_policy(other))
    tiny_model_folder(tmp_path / "scorer", seed=4)
    with pytest.raises(UserError, match=r"scored with another model than .*scorer' is"):
        score_corpus(run.config, run.scored)


def test_scores_of_another_window_are_refused(tmp_path):
    run = tiny_run(tmp_path)
    edited = validate_config(
        run.config.model_dump() | {"prompt": run.config.prompt.model_copy(update={"window": 40})},
        source="test",
    )
    with pytest.raises(UserError, match=r"other settings: prompt\.window was 32, is now 40"):
        scores_of(Run(path=run.path, config=edited))


# ---- a scorer with another tokenizer ------------------------------------------------------------


@given(st.text(alphabet="ab é", min_size=1, max_size=30), st.data())
def test_alignment_keeps_exactly_the_shared_boundaries(text, data):
    whole = text.encode()

    def cut() -> list[bytes]:
        inner = st.sets(st.integers(1, max(1, len(whole) - 1)))
        bounds = sorted({0, len(whole)} | {b for b in data.draw(inner) if b < len(whole)})
        return [whole[a:b] for a, b in pairwise(bounds)]

    pieces, scorer_pieces = cut(), cut()
    scorer_bounds = {sum(map(len, scorer_pieces[:n])) for n in range(len(scorer_pieces) + 1)}
    start = 0
    for piece, (a, b) in zip(pieces, align(pieces, scorer_pieces), strict=True):
        end = start + len(piece)
        if a < b:
            assert b"".join(scorer_pieces[a:b]) == piece
            assert len(b"".join(scorer_pieces[:a])) == start
        assert (a < b) == (start in scorer_bounds and end in scorer_bounds)
        start = end


def test_aligned_scores_are_sums_and_the_first_entropy():
    scores = Scores.empty(4)
    scores.negative_log_likelihood[:] = [np.nan, 1.0, 2.0, 4.0]
    scores.entropy[:] = [np.nan, 0.1, 0.2, 0.3]
    scores.entropy_top16[:] = [np.nan, 0.01, 0.02, 0.03]
    found = aligned_scores(scores, [(0, 1), (1, 3), (0, 0), (3, 4)])
    nan = np.nan
    np.testing.assert_allclose(found.negative_log_likelihood, [nan, 3.0, nan, 4.0])
    np.testing.assert_allclose(found.entropy, [nan, 0.1, nan, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found.entropy_top16, [nan, 0.01, nan, 0.03], rtol=1e-6)


def test_a_scorer_with_another_tokenizer_is_aligned_by_bytes(tmp_path, corpus, policy):
    scorer = policy_of(sentencepiece_tokenizer(), dtype=torch.float32)
    config = config_of(corpus, prompt__window=128, score__shard_tokens=100_000)  # one batch
    summary = score_corpus(config, tmp_path / "scored", policy=tree(policy), scorer=tree(scorer))
    scored = load_scored(tmp_path / "scored")
    dropped = kept = agreed = 0
    documents = [scored.document(document_id) for document_id in scored.entries]
    encoded = [encode_document(scorer.tokenizer, document.text) for document in documents]
    alike = score_documents(tree(scorer), [ids for ids, _ in encoded], window=128, min_context=8)
    for document, (_, scorer_pieces), own in zip(documents, encoded, alike, strict=True):
        pieces = token_bytes(policy.tokenizer, document.token_ids.tolist())
        source = align(pieces, scorer_pieces)
        dropped += sum(a == b for a, b in source)
        for t, (a, b) in enumerate(source):
            if a == b or a == 0:
                assert np.isnan(document.entropy[t]) and document.ntp_token_id[t] == -1
                continue
            total = own.negative_log_likelihood[a:b].sum()
            assert document.negative_log_likelihood[t] == pytest.approx(total, rel=1e-5)
            assert document.entropy[t] == own.entropy[a]
            said = scorer.table.bytes[own.argmax[a]]
            assert document.ntp_correct[t] == prefix_match(said, pieces[t:])
            if document.ntp_token_id[t] >= 0:
                assert policy.table.bytes[document.ntp_token_id[t]] == said
                agreed += 1
            kept += 1
    assert summary.positions_dropped == dropped > 0
    assert kept > dropped and 0 < agreed <= kept
