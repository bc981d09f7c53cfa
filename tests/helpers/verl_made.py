"""An exported run, opened as verl opens it; importing this needs verl."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset

from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.tokens import literal_bytes, token_table
from openrpt.data.work import document_bytes
from openrpt.integrations.verl.completing import Form
from openrpt.rl.completions import extract_prediction
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import Run
from tests.helpers.verl_export import exported, rows
from tests.helpers.verl_server import RoteServer

GROUP = 4


class Made:
    """An exported run, opened as verl opens it."""

    def __init__(self, folder: Path) -> None:
        self.run: Run
        self.run, self.folder = exported(folder, train__group_size=GROUP)
        self.corpus: ScoredCorpus = load_scored(self.run.scored)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
        self.table = token_table(self.tokenizer)
        loops = OmegaConf.load(self.folder / "agent_loop.yaml")
        self.form = Form.read(loops[0].form)

    def config(self, name: str = "rpt", *overrides: str) -> DictConfig:
        """A file of the folder on top of verl's own defaults, as `train.sh` has it."""
        with initialize_config_dir(config_dir=str(self.folder), version_base=None):
            search = "hydra.searchpath=[pkg://verl.trainer.config]"
            return compose(config_name=name, overrides=[search, *overrides])

    def dataset(self, name: str = "train") -> RLHFDataset:
        path = str(self.folder / f"{name}.parquet")
        return RLHFDataset(path, self.tokenizer, self.config().data)

    def truth(self, info: dict[str, Any]) -> list[bytes]:
        """The bytes of the true tokens from a row's position on, of the scored corpus."""
        document = self.corpus.document(info["document_id"])
        return document_bytes(self.tokenizer, document)[info["position"] :]

    def true_ids(self, info: dict[str, Any]) -> list[int]:
        document = self.corpus.document(info["document_id"])
        return document.token_ids[info["position"] :].tolist()

    def reward(self, ids: list[int], info: dict[str, Any]) -> float:
        text = literal_bytes(self.table, ids, self.form.layout.literal)
        return prefix_match(extract_prediction(text), self.truth(info))

    def server(self, *, hopeless: slice = slice(0)) -> RoteServer:
        """A server that is often right, but never at the rows of `hopeless`."""
        infos = [row["extra_info"] for row in rows(self.folder)]
        prompts = [tuple(info["prompt_ids"]) for info in infos]
        truths = map(self.true_ids, infos)
        return RoteServer(
            self.form,
            dict(zip(prompts, truths, strict=True)),
            hopeless=prompts[hopeless],
            end_box=self.table.bytes.index(b"}"),
            words=len(self.table.bytes),
        )
