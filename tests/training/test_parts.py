"""A batch in parts (passes of one process, shares of several, or both) trains as one pass with as many batch-norm parts does.

That one is held against plain loops in test_step.py. In float64: sums in another order are rounded differently by 1e-16, which batch norm
over few values makes 6e-14 within three steps (float32 would end in the second digit); a real difference would show as 0.01.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rspnet_cli import distributed
from rspnet_cli.clips.draws import draw_step
from rspnet_cli.config import PretrainConfig
from rspnet_cli.encoder.moco import query_projection
from rspnet_cli.training.optimiser import build_optimizer
from rspnet_cli.training.step import LoadedClips, rspnet_step
from tests.processes import fork_ranks
from tests.training.test_step import CPU, FRAMES, SIZE, _double, settings, start  # noqa: F401 (a fixture)

BATCH, STEPS = 8, 3


def parted(bn_splits: int, accumulate: int = 1, *, sparing: bool = False) -> PretrainConfig:
    """bn_splits: of each process. sparing: activations are computed again.

    Keys of the same video are masked, so that a part's rows must be told from another's in the negatives, too.
    """
    moco = {"bn_splits": bn_splits, "queue_size": 2 * BATCH, "mask_same_video": True}
    # TSM keeps its frames, so batch norm of the smallest map has eight values in a part of two clips. Of two it makes 1 and -1, whatever
    # they are, with gradients that are rounding errors.
    model = {"backbone": "tsm-r18"}
    optim, run = {"batch_size": BATCH, "accumulate": accumulate}, {"checkpoint_activations": sparing}
    return settings(model=model, moco=moco, clip={"speeds": (2,)}, optim=optim, run=run)


def trained(config: PretrainConfig) -> dict[str, Tensor]:
    """Everything a checkpoint would hold after some steps, and their figures; on every rank its own share of the same batches."""
    moco, _ = start(config)
    moco.query.backbone.checkpoint_activations = config.run.checkpoint_activations
    optimizer = build_optimizer(config.optim, moco.query)
    parts, share = distributed.world_size() * config.moco.bn_splits, BATCH // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    data = torch.Generator().manual_seed(2)
    figures = []
    with distributed.process_group("cpu"):
        project = query_projection(moco, CPU, passes=config.optim.accumulate)
        for number in range(STEPS):
            query, key = torch.randn(2, BATCH, 3, 2 * FRAMES, SIZE, SIZE, generator=data, dtype=torch.float64)
            offsets = torch.arange(2 * FRAMES).repeat(share, 1)
            draw = draw_step(BATCH, speeds=(2,), sub_batches=parts, seed=1, epoch=0, step=number)
            optimizer.zero_grad()
            clips = LoadedClips(query[own], offsets), LoadedClips(key[own], offsets)
            videos = (torch.arange(BATCH) + 4 * number)[own]
            figures.append(torch.stack(rspnet_step(moco, project, *clips, videos, draw, config, momentum=0.7)))
            optimizer.step()
        del project  # gone before the process group that it uses
        state = {name: value.clone() for name, value in moco.state_dict().items()}
        return state | {"figures": distributed.mean_over_ranks(torch.stack(figures))}


def trained_by(processes: int, config: PretrainConfig, tmp_path: Path) -> dict[str, Tensor]:
    def one() -> None:
        torch.set_num_threads(1)
        state = trained(config)
        if distributed.is_main():
            torch.save(state, tmp_path / "state.pt")

    outputs = [tmp_path / f"output-{rank}" for rank in range(processes)]
    assert fork_ranks(one, outputs) == [0] * processes, "".join(output.read_text() for output in outputs)
    return torch.load(tmp_path / "state.pt")


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        # Whole numbers (videos of the queue, its pointer, batches that batch norm has seen) exactly.
        close = {"rtol": 1e-11, "atol": 1e-11} if value.is_floating_point() else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(other[name], value, **close, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.usefixtures("_double")
def test_parts_passes_and_processes_train_the_same_encoder_queue_and_batch_norm(tmp_path: Path) -> None:
    halves, quarters = trained(parted(2)), trained(parted(4))
    assert_equal(halves, trained_by(2, parted(1), tmp_path))
    assert_equal(halves, trained(parted(2, accumulate=2)))
    assert_equal(quarters, trained(parted(4, accumulate=2)))
    assert_equal(quarters, trained_by(2, parted(2, accumulate=2, sparing=True), tmp_path))
    for one, other in ((halves, quarters), (halves, trained(parted(1)))):
        assert (one["figures"] - other["figures"]).abs().max() > 0.01, "another number of parts would have gone unnoticed"
    counts = {int(value) for name, value in halves.items() if name.startswith("query.") and name.endswith("num_batches_tracked")}
    assert counts == {STEPS}, "batch norm's statistics move once a step"
