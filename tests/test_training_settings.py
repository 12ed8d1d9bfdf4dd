"""What is known before a training begins: schedules, checkpoints, data order, and what each optimizer moves."""

import itertools

import pytest
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from infocomp.training.optimizers import AdamWSettings, MuonSettings, OptimizerSettings, hidden_matrices
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings, ShuffledOrder
from infocomp.training.trainer import TrainerSettings


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.inner = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.outer = nn.Linear(16, 8)
        self.head = nn.Linear(8, 5, bias=False)


def test_the_schedule_warms_up_stays_and_decays():
    schedule = ScheduleSettings(warmup_steps=2, decay="linear", decay_from=0.5, final=0.1)
    shares = [schedule.share(step, 8) for step in range(8)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 0.775, 0.55, 0.325])
    assert ScheduleSettings(decay="cosine").share(4, 8) == pytest.approx(0.5)
    assert ScheduleSettings().share(7, 8) == 1.0


def test_checkpoints_are_log_spaced_then_regular_and_always_include_the_last():
    assert CheckpointSettings().steps(512) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert CheckpointSettings(log_spaced_until=4, every=10).steps(23) == [0, 1, 2, 4, 10, 20, 23]
    assert CheckpointSettings(log_spaced_until=16, every=16).steps(48) == [0, 1, 2, 4, 8, 16, 32, 48]
    assert CheckpointSettings(log_spaced_until=0).steps(3) == [0, 3]


def test_every_example_comes_once_an_epoch_and_a_step_always_gets_the_same_batch():
    order = ShuffledOrder(examples=10, batch=4, seed=2)
    batches = [order(step).tolist() for step in range(10)]
    read = list(itertools.chain.from_iterable(batches))
    assert all(sorted(read[10 * epoch : 10 * epoch + 10]) == list(range(10)) for epoch in range(4))
    assert read[:10] != read[10:20]
    assert batches[7] == ShuffledOrder(examples=10, batch=4, seed=2)(7).tolist()
    assert batches[0] != ShuffledOrder(examples=10, batch=4, seed=3)(0).tolist()


def test_an_order_without_examples_is_refused():
    with pytest.raises(ValueError, match="examples and batch must be at least 1, got 0 and 4"):
        ShuffledOrder(examples=0, batch=4)


def test_muon_moves_hidden_matrices_only():
    model = Small()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = hidden_matrices(model, ["head.*"])
    assert [names[id(parameter)] for parameter in hidden] == ["inner.weight", "outer.weight"]
    muon, rest = MuonSettings(not_hidden=("head.*",)).build(model)
    assert isinstance(muon, torch.optim.Muon) and isinstance(rest, torch.optim.AdamW)
    moved = [names[id(p)] for optimizer in (muon, rest) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(names.values())


def test_a_glob_that_names_no_parameter_is_an_error_with_the_nearest_names():
    with pytest.raises(KeyError, match=r"no parameter matches 'hed\.weight'; closest are 'head\.weight'"):
        hidden_matrices(Small(), ["hed.weight"])


def test_muon_without_a_hidden_matrix_is_refused():
    with pytest.raises(ValueError, match="Embedding has no hidden matrix for Muon to move; use the optimizer 'adamw'"):
        MuonSettings().build(nn.Embedding(3, 2))


def test_vectors_do_not_decay_where_asked():
    (adamw,) = AdamWSettings(weight_decay=0.1, decay_vectors=False).build(Small())
    decays = {
        parameter.ndim >= 2: group["weight_decay"] for group in adamw.param_groups for parameter in group["params"]
    }
    assert decays == {True: 0.1, False: 0.0}
    (plain,) = AdamWSettings(weight_decay=0.1).build(Small())
    assert [group["weight_decay"] for group in plain.param_groups] == [0.1]


def test_settings_come_from_yaml_and_refuse_what_they_do_not_know():
    class Holder(BaseModel):
        model_config = ConfigDict(strict=True)
        optimizer: OptimizerSettings

    given = {"optimizer": {"name": "muon", "rest": {"learning_rate": 0.5}, "not_hidden": ["head.weight"]}}
    read = Holder.model_validate(given).optimizer
    assert isinstance(read, MuonSettings) and read.rest.learning_rate == 0.5 and read.not_hidden == ("head.weight",)
    with pytest.raises(ValidationError, match=r"steps\n.*Input should be a valid integer"):
        TrainerSettings.model_validate({"steps": "40"})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TrainerSettings.model_validate({"steps": 40, "step": 3})
    with pytest.raises(ValidationError, match="greater than 0"):
        TrainerSettings.model_validate({"steps": 0})
    with pytest.raises(ValidationError, match="frozen"):
        TrainerSettings(steps=2).steps = 3
