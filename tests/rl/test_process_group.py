"""Real processes over gloo: sums, what is gathered, and how the loss of one ends the others."""

import os
import pickle
import signal
import socket
from pathlib import Path

import pytest
import torch

from openrpt.errors import SaidElsewhere, UserError
from openrpt.files import write_text
from openrpt.launch import Launch, launch
from openrpt.rl import process_group, roll_call
from openrpt.rl.launched import launched_workers
from openrpt.rl.process_group import LostProcess, ProcessGroup
from openrpt.rl.roll_call import RollCall
from openrpt.rl.workers import ALONE
from tests.helpers.processes import await_files, in_processes


def test_one_process_is_alone() -> None:
    with launched_workers("cpu", minutes=5) as workers:
        assert workers is ALONE
        assert workers.first(lambda: 3) == 3


def test_an_environment_that_is_no_launchers_is_refused() -> None:
    assert launch({}) == Launch()
    with pytest.raises(UserError, match=r"WORLD_SIZE is set .* and RANK is '', no number"):
        launch({"WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="RANK = 2 in the environment, but WORLD_SIZE = 2"):
        launch({"WORLD_SIZE": "2", "RANK": "2"})


def parameters(rank: int) -> list[torch.nn.Parameter]:
    """Gradients of several precisions: one that only rank 1 has, one that nobody has."""
    shapes = [(3, 2), (5,), (4,), (2, 2), (1,)]
    dtypes = [torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float32]
    made = [
        torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    for number, parameter in enumerate(made[:4]):
        if number != 1 or rank == 1:
            parameter.grad = torch.full_like(parameter, 10.0**rank)
    return made


def test_values_and_gradients_are_the_same_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "_BUCKET_ELEMENTS", 8)  # several sums

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=5) as workers:
            own = parameters(rank)
            workers.sum_gradients(own)
            found = {
                "share": workers.share("abcde"),
                "gather": workers.gather("x" * (rank + 1)),
                "first": workers.first(lambda: f"from {rank}"),
                "gradients": [None if p.grad is None else p.grad.tolist() for p in own],
            }
            (tmp_path / str(rank)).write_bytes(pickle.dumps(found))

    assert [one.code for one in in_processes(3, work)] == [0, 0, 0]
    each = [pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(3)]
    assert [found.pop("share") for found in each] == [["a", "d"], ["b", "e"], ["c"]]
    assert each[0] == each[1] == each[2]
    assert each[0]["gather"] == ["x", "xx", "xxx"]
    assert each[0]["first"] == "from 0"
    sums = [[[111.0] * 2] * 3, [10.0] * 5, [111.0] * 4, [[111.0] * 2] * 2, None]
    assert each[0]["gradients"] == sums


def lose(how: str, folder: Path) -> None:
    """What happens to rank 1 before the others' next meeting."""
    if how == "fails":
        raise UserError("corpus.jsonl:7: no such field")
    if how == "bug":
        raise ZeroDivisionError("division by zero")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    await_files(folder, "0", "2")  # "late": alive, and not there until the others have given up


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("fails", "rank 1 of 3: corpus.jsonl:7: no such field"),
        ("bug", "rank 1 of 3: division by zero"),
        ("killed", "rank 1 of 3 ended without a word while the others waited for it ('gather')"),
        ("frozen", "rank 1 of 3 ended without a word while the others waited for it ('gather')"),
        ("late", "rank 1 of 3 (at 'gather') did not come to 'gather' within 0.02 min"),
    ],
)
def test_the_loss_of_one_ends_the_others_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    """Long before the limit of a collective; and the first alone says it."""
    monkeypatch.setattr(roll_call, "_BEAT_SECONDS", 0.2)
    if how == "frozen":  # only here: on a busy machine the others' beats may be late, too
        monkeypatch.setattr(process_group, "FROZEN_SECONDS", 8.0)

    def work(rank: int) -> None:
        said = ""
        try:
            with launched_workers("cpu", minutes=60) as workers:
                assert isinstance(workers, ProcessGroup)
                pids = workers.gather(os.getpid())
                if rank == 1:
                    lose(how, tmp_path)
                elif how == "late":  # its limit is not for how far the others are apart
                    (tmp_path / f"{rank} is there").touch()
                    await_files(tmp_path, "0 is there", "2 is there")
                    workers.timeout = 1.2
                workers.gather(1)
        except (UserError, ZeroDivisionError) as error:
            said = f"{type(error).__name__}: {error}"
            if rank == 0 and how == "frozen":
                os.kill(pids[1], signal.SIGKILL)
        write_text(tmp_path / str(rank), said)

    ended = in_processes(3, work)
    code = -signal.SIGKILL if how in ("killed", "frozen") else 0
    assert [one.code for one in ended] == [0, code, 0], ended
    said = {int(path.name): path.read_text() for path in tmp_path.glob("[0-9]")}
    assert said[0].startswith(f"{LostProcess.__name__}: {message}"), said
    assert said[2].startswith(f"{SaidElsewhere.__name__}: {message}"), said
    if how == "fails":
        assert said[1].startswith(SaidElsewhere.__name__), said
    if how == "bug":  # its traceback is its own
        assert said[1].startswith("ZeroDivisionError"), said


def test_nobody_waits_for_one_that_has_ended() -> None:
    """The process that says why the run ends waits for all that may still hear it."""
    store = torch.distributed.HashStore()
    one, other = (RollCall(store, rank=rank, count=2) for rank in (0, 1))
    assert one.end("rank 1 of 2: a bug") and not store.check(["heard/1"])
    other.close()
    assert store.check(["heard/1"]) and one.speaks()
    one.close()


def test_the_loss_of_the_first_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it goes the store, where no launcher holds that: each of the others says so."""
    monkeypatch.setattr(roll_call, "_BEAT_SECONDS", 0.2)

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=5) as workers:
            workers.gather(0)
            if rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                workers.gather(1)
            except LostProcess as error:
                (tmp_path / str(rank)).write_text(str(error))

    ended = in_processes(3, work)
    assert [one.code for one in ended] == [-signal.SIGKILL, 0, 0], ended
    for rank in (1, 2):
        assert "rank 0 of 3" in (tmp_path / str(rank)).read_text()


def test_a_port_in_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in (own | {"MASTER_PORT": str(taken.getsockname()[1])}).items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(UserError, match=r"rank 0 of 2 does not find the others: .*MASTER_PORT"),
            launched_workers("cpu", minutes=5),
        ):
            pass


def test_a_device_for_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UserError, match=r"model\.device = 'cuda:1' is for one process, and 2 were"),
        launched_workers("cuda:1", minutes=5),
    ):
        pass
