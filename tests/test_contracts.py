"""The import contracts of pyproject.toml hold, and each is broken by an import that it forbids."""

from copy import deepcopy
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

ROOT = Path(__file__).parent.parent
OPTIONS = read_configuration(config_filename=str(ROOT / "pyproject.toml"))
CONTRACTS = {one["name"]: one for one in OPTIONS["contracts_options"]}
KINDS = {"layers": LayersContract, "forbidden": ForbiddenContract}
STACK, TORCH, TREE = CONTRACTS
FORBIDDEN = [
    (STACK, "openrpt.config.paths", "openrpt.data.work"),
    (STACK, "openrpt.data.work", "openrpt.engine.model"),
    (STACK, "openrpt.engine.model", "openrpt.costs.flops"),
    (STACK, "openrpt.costs.flops", "openrpt.rl.update"),
    (STACK, "openrpt.rl.update", "openrpt.runs.run"),
    (STACK, "openrpt.runs.run", "openrpt.evaluation.records"),
    (STACK, "openrpt.evaluation.records", "openrpt.stages.train"),
    (STACK, "openrpt.report.page", "openrpt.stages.train"),
    (STACK, "openrpt.stages.train", "openrpt.experiments.demo"),
    (STACK, "openrpt.experiments.demo", "openrpt.cli.main"),
    (STACK, "openrpt.errors", "openrpt.files"),
    (TORCH, "openrpt.rl.completions", "torch"),
    (TORCH, "openrpt.data.work", "torch"),
    (TORCH, "openrpt.integrations.verl.completing", "openrpt.engine.model"),
    (TREE, "openrpt.rl.update", "openrpt.engine.tree.levels"),
    (TREE, "openrpt.stages.train", "openrpt.engine.tree.engine"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("openrpt", include_external_packages=True, cache_dir=None)


def is_kept(name: str, graph: grimp.ImportGraph) -> bool:
    contract = KINDS[CONTRACTS[name]["type"]](
        name=name,
        session_options=OPTIONS["session_options"],
        contract_options=CONTRACTS[name],
    )
    return bool(contract.check(graph=deepcopy(graph), verbose=False).kept)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_holds(name: str, graph: grimp.ImportGraph) -> None:
    assert is_kept(name, graph)


@pytest.mark.parametrize(("name", "importer", "imported"), FORBIDDEN)
def test_a_contract_is_broken_by_what_it_forbids(
    name: str, importer: str, imported: str, graph: grimp.ImportGraph
) -> None:
    changed = deepcopy(graph)
    assert {importer, imported} <= changed.modules and not changed.direct_import_exists(
        importer=importer, imported=imported
    )
    changed.add_import(importer=importer, imported=imported)
    assert not is_kept(name, changed)
