"""Where a training step's time goes: by phase, and by kernel of torch.

python benchmarks/operators.py

The case of train_step.py, on OpenRPT alone, under torch's profiler; one step before sets things
up. The times are of the kernels themselves, without what they call.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from case import Case, add_arguments, make_case
from common import RESULTS, environment, exit_cleanly, parser_of, say, write_result

SHOWN = 12
"""Kernels that are named, the longest first; the others are one row."""
PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm"}
ATTENTION = "aten::_scaled_dot_product"


def main() -> None:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument("--output", type=Path, default=RESULTS / "operators.json")
    given = parser.parse_args()
    case = make_case(given)
    facts = environment()
    write_result(given.output, "operators", facts | {"case": case.facts()} | measure(case))


def measure(case: Case) -> dict[str, Any]:
    import openrpt_step as own

    from openrpt.engine.cpu import use_cpu
    from openrpt.engine.engine import bind
    from openrpt.engine.loading import load_model
    from openrpt.rl.optimizer import make_optimizer, set_learning_rate

    config = own.config_of(case.job())
    use_cpu(config.model.threads)
    loaded = load_model(config.model, trained=True)
    policy = own.EndlessModel(network=loaded.network, tokenizer=loaded.tokenizer, name=loaded.name)
    layout = own.endless_layout(policy, config)
    optimizer = make_optimizer(policy, config.optim, weight_decay=config.optim.weight_decay)
    set_learning_rate(optimizer, config.train.learning_rate)
    engine = bind("tree", policy)
    work = own.work_of(case.job(), config.train.positions_per_document)
    kept: list[Any] = []

    def generate() -> None:
        kept.append(own.draw(engine, config, layout, work, case.group_size, len(kept)))

    def update() -> None:
        graded = own.graded_of(policy, layout, work, kept[-1], number=len(kept))
        own.update_policy(engine, optimizer, [graded], config, layout)

    say("one step that is not counted")
    generate()
    update()
    return {"phases": {"generate": profiled(generate), "update": profiled(update)}}


def profiled(run: Callable[[], None]) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    say("under the profiler")
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
    whole = sum(spent.values())
    longest = sorted(spent, key=lambda name: -spent[name])
    shares = {name: spent[name] / whole for name in longest[:SHOWN]}
    return {
        "seconds": whole,
        "matrix_products": sum(spent.get(name, 0.0) for name in PRODUCTS) / whole,
        "attention": sum(s for name, s in spent.items() if name.startswith(ATTENTION)) / whole,
        "kernels": shares | {"all others": 1 - sum(shares.values())},
    }


if __name__ == "__main__":
    exit_cleanly(main)
