"""Checkpoints: everything comes back, a kill between two files leaves the former one, a damaged file is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.encoder.moco import MoCo
from rspnet_cli.errors import DiskFullError, InputError
from rspnet_cli.files import sha256_of
from rspnet_cli.training.checkpoint import Checkpoints
from tests.processes import kill_at_change
from tests.sentences import refused


def make(seed: int = 0, optimizer: str = "sgd") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return model, make_optimizer(model, optimizer)


def make_optimizer(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 7) -> None:
    data = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, generator=data)).square().mean().backward()
        optimizer.step()


def states(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{number}.{name}": torch.as_tensor(value).clone() for name, value in values.items() if value is not None}
    return tensors


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_training_continues_as_if_it_had_not_stopped(tmp_path: Path, kind: str) -> None:
    model, optimizer = make(optimizer=kind)
    train(model, optimizer, 3)
    Checkpoints(tmp_path).save({"at": 3}, model, optimizer, position=3)
    other, other_optimizer = make(seed=1, optimizer=kind)
    again = Checkpoints(tmp_path)
    assert again.state == {"at": 3}
    again.load(other, other_optimizer)
    assert_equal(states(other, other_optimizer), states(model, optimizer))
    for pair in ((model, optimizer), (other, other_optimizer)):
        train(*pair, 3, seed=8)
    assert_equal(states(other, other_optimizer), states(model, optimizer))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_optimiser_comes_back_in_the_memory_layout_of_its_parameters(tmp_path: Path, kind: str) -> None:
    def network() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Conv3d(3, 4, kernel_size=2).to(memory_format=torch.channels_last_3d)
        return model, make_optimizer(model, kind)

    model, optimizer = network()
    model(torch.randn(1, 3, 4, 4, 4)).square().mean().backward()
    optimizer.step()
    Checkpoints(tmp_path).save({}, model, optimizer, position=1)
    other, other_optimizer = network()
    Checkpoints(tmp_path).load(other, other_optimizer)
    assert_equal(states(other, other_optimizer), states(model, optimizer))
    assert isinstance(other, nn.Conv3d)
    moments = [value for value in other_optimizer.state[other.weight].values() if value is not None and value.dim() == 5]
    assert moments
    assert {value.stride() for value in moments} == {other.weight.stride()}


def test_a_checkpoint_before_the_first_step_has_no_optimiser_state(tmp_path: Path) -> None:
    model, optimizer = make()
    Checkpoints(tmp_path).save({}, model, optimizer, position=0)
    other, other_optimizer = make(seed=1)
    Checkpoints(tmp_path).load(other, other_optimizer)
    assert_equal(states(other, other_optimizer), states(model, optimizer))


def test_a_new_folder_has_no_state(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).state is None
    assert list(tmp_path.iterdir()) == []


def test_queue_pointer_and_all_keys_of_the_two_encoders_are_saved(tmp_path: Path) -> None:
    moco = MoCo(Encoder("r3d18", width=0.1, embedding_dim=4), embedding_dim=4, queue_size=8)
    moco.enqueue(torch.randn(4, 4), torch.arange(4))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({}, moco, torch.optim.SGD(moco.query.parameters(), lr=0.1), position=1)
    (last,) = [path for path in checkpoints.publish() if path.endswith("/last.safetensors")]
    saved = load_file(tmp_path / last)
    assert {name.partition(".")[0] for name in saved} == {"query", "key", "queue", "queue_videos", "queue_ptr"}
    assert saved["queue"].shape == (4, 8)
    assert saved["queue_videos"].tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
    assert saved["queue_ptr"].tolist() == [4]
    for name, value in moco.state_dict().items():
        assert torch.equal(saved[name], value)


def test_last_best_and_kept_ones_are_published_and_older_ones_are_gone(tmp_path: Path) -> None:
    model, optimizer = make()
    checkpoints = Checkpoints(tmp_path)
    weights = []
    for epoch, (best, keep) in enumerate([(False, ""), (True, "epoch_2"), (False, ""), (False, "epoch_4")], start=1):
        train(model, optimizer, 1)
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        checkpoints = Checkpoints(tmp_path)  # as after a resume
        checkpoints.save({"epoch": epoch}, model, optimizer, position=epoch, best=best, keep=keep)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        *("best-2.safetensors", "epoch_2.safetensors", "epoch_4.safetensors", "index.json"),
        *("last-4.optimizer.safetensors", "last-4.safetensors"),
    ]
    for _ in range(2):  # a finish that was killed is repeated
        published = checkpoints.publish()
    names = {"last": 3, "best": 1, "epoch_2": 1, "epoch_4": 3}
    assert sorted(published) == sorted(f"checkpoints/{name}.safetensors" for name in [*names, "last.optimizer"])
    for name, number in names.items():
        saved = load_file(tmp_path / f"checkpoints/{name}.safetensors")
        assert_equal(saved, weights[number])
    Checkpoints(tmp_path).load(*make(seed=1))  # still whole for a resume


def test_where_the_file_system_has_no_links_published_files_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    model, optimizer = make()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({}, model, optimizer, position=1)
    checkpoints.publish()
    assert sha256_of(tmp_path / "checkpoints/last.safetensors") == sha256_of(tmp_path / "checkpoints/last-1.safetensors")


def test_equal_training_gives_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        model, optimizer = make(optimizer="adamw")
        train(model, optimizer, 2)
        Checkpoints(tmp_path / folder).save({"x": 1.5}, model, optimizer, position=2, best=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_kill_at_any_moment_leaves_the_former_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    model, optimizer = make()
    train(model, optimizer, 1)
    former = states(model, optimizer)
    seen = []
    number = 0
    while True:
        folder = tmp_path / str(number)
        fresh, fresh_optimizer = make()
        train(fresh, fresh_optimizer, 1)
        Checkpoints(folder).save({"at": 1}, fresh, fresh_optimizer, position=1, best=True)
        train(fresh, fresh_optimizer, 1)
        newer = states(fresh, fresh_optimizer)

        def save(folder: Path = folder, model: nn.Module = fresh, optimizer: torch.optim.Optimizer = fresh_optimizer) -> None:
            Checkpoints(folder).save({"at": 2}, model, optimizer, position=2, best=True, keep="epoch_2")

        killed = kill_at_change(save, number)
        other, other_optimizer = make(seed=1)
        again = Checkpoints(folder)
        assert again.state is not None
        again.load(other, other_optimizer)
        assert_equal(states(other, other_optimizer), former if again.state["at"] == 1 else newer)
        seen.append(again.state["at"])
        again.save({"at": 2}, fresh, fresh_optimizer, position=2, best=True, keep="epoch_2")  # what the resumed run does
        assert len(list((folder / "checkpoints").iterdir())) == 5
        if not killed:
            break
        number += 1
    assert seen == sorted(seen)
    assert {1, 2} == set(seen)
    assert seen.count(1) >= 6, "the kills did not fall between the files"


FILES = ["last-1.safetensors", "last-1.optimizer.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_missing_or_exchanged_file_is_refused(tmp_path: Path, name: str) -> None:
    model, optimizer = make()
    train(model, optimizer, 1)
    Checkpoints(tmp_path).save({}, model, optimizer, position=1)
    path = tmp_path / "checkpoints" / name
    good = path.read_bytes()

    def check() -> None:
        with pytest.raises(InputError) as caught:
            Checkpoints(tmp_path).load(*make())
        # --force continues an unfinished run of the same settings, so it would meet the same file again.
        assert "--force" not in refused(caught.value, str(path), f"remove {tmp_path}")

    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    check()
    path.write_bytes(good[:-10])
    check()
    path.unlink()
    check()
    path.write_bytes(b"")
    check()


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"files": {}}',
            b'{"files": [], "state": {}}',
            b'{"files": {}, "state": {}}',
        ),
        *(b'{"files": {"last": 3}, "state": {}}', b'{"files": {"last": ["../x", "0"], "last.optimizer": ["../x", "0"]}, "state": {}}'),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_damaged_index_is_refused(tmp_path: Path, content: bytes) -> None:
    model, optimizer = make()
    Checkpoints(tmp_path).save({}, model, optimizer, position=1)
    index = tmp_path / "checkpoints" / "index.json"
    index.write_bytes(content)

    def resume() -> None:
        Checkpoints(tmp_path).load(*make())

    with pytest.raises(InputError) as caught:
        resume()
    refused(caught.value, str(index), f"remove {tmp_path}")


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    model, optimizer = make()
    Checkpoints(tmp_path).save({}, model, optimizer, position=1)
    for other in (nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))):
        with pytest.raises(InputError) as caught:
            Checkpoints(tmp_path).load(other, torch.optim.SGD(other.parameters(), lr=0.1))
        refused(caught.value, str(tmp_path), "does not fit")


def test_on_a_full_disk_the_former_checkpoint_stays_and_room_lets_it_go_on(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(512)
    model = nn.Linear(250, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 250)).sum().backward()
    optimizer.step()
    Checkpoints(disk).save({"at": 1}, model, optimizer, position=1)  # 200 of 512 KiB
    filler = disk / "filler"
    filler.write_bytes(bytes(150 * 1024))
    former = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    with pytest.raises(DiskFullError):
        Checkpoints(disk).save({"at": 2}, model, optimizer, position=2)
    again = Checkpoints(disk)
    assert again.state == {"at": 1}
    other = nn.Linear(250, 100)
    again.load(other, torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9))
    assert_equal(dict(other.state_dict()), former)
    filler.unlink()
    again.save({"at": 2}, model, optimizer, position=2)
    assert Checkpoints(disk).state == {"at": 2}


def test_the_index_says_nothing_that_is_no_number(tmp_path: Path) -> None:
    model, optimizer = make()
    with pytest.raises(ValueError):
        Checkpoints(tmp_path).save({"loss": float("nan")}, model, optimizer, position=1)
    Checkpoints(tmp_path).save({"loss": 0.1 + 0.2}, model, optimizer, position=1)
    state = Checkpoints(tmp_path).state
    assert state == {"loss": 0.1 + 0.2}
    assert json.loads((tmp_path / "checkpoints" / "index.json").read_text())["state"] == state
