"""Training with states kept: the same alone, stacked and after a kill; events; and the transition that it is for."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from test_many_kill import forked
from transformers import AutoTokenizer

from infocomp.grokking.curves import Curves
from infocomp.grokking.recipe import GrokkingRecipe, GrokkingTraining, KeptSettings, ShapeSettings
from infocomp.grokking.tasks import ArithmeticTask
from infocomp.grokking.transition import Transition, date_transition
from infocomp.training.many import train_many
from infocomp.training.recipe import train_one

QUADRATIC = ShapeSettings(kind="quadratic_mlp", width=32)
TRAINING = GrokkingTraining(
    steps=60, learning_rate=0.02, keep=KeptSettings(first=10, ratio=2.0, change=0.3, events=2), loss_precision="float64"
)


def recipe(seed: int = 0, shape: ShapeSettings = QUADRATIC, **more) -> GrokkingRecipe:
    task = ArithmeticTask("addition", 13)
    return GrokkingRecipe(task, shape, TRAINING.model_copy(update=more), 0.5, seed=seed)


def steps_kept(folder) -> list[int]:
    return sorted(int(path.name.removeprefix("step")) for path in (folder / "checkpoints").iterdir())


def weights(folder) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "checkpoints").rglob("*.safetensors")}


def test_states_are_kept_log_spaced_and_at_events(tmp_path):
    found = train_one(recipe(), tmp_path)
    accuracy = {row["step"]: row["train_accuracy"] for row in found.rows}
    kept = steps_kept(tmp_path)
    assert set(kept) >= {0, 10, 20, 40, 60}
    events = sorted(set(kept) - {0, 10, 20, 40, 60})
    assert events == [30]  # from .02 at step 20, the only evaluation off the schedule that moves by .3
    assert accuracy[30] - accuracy[20] >= 0.3 > abs(accuracy[50] - accuracy[40])


def test_the_number_of_events_is_limited(tmp_path):
    train_one(recipe(keep=KeptSettings(first=10, ratio=2.0, change=0.01, events=0)), tmp_path)
    assert steps_kept(tmp_path) == [0, 10, 20, 40, 60]


def test_no_state_is_kept_where_none_is_asked_for(tmp_path):
    train_one(recipe(keep=None), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_stack_keeps_the_same_states_with_the_same_weights(tmp_path):
    recipes = {f"seed {seed}": recipe(seed) for seed in (0, 1)}
    found = {}
    for mode in ("in_turn", "stacked"):
        with train_many(recipes, tmp_path / mode, mode=mode) as many:
            found[mode] = {name: many.result(name) for name in recipes}
    for name in recipes:
        alone, stacked = (tmp_path / mode / name for mode in ("in_turn", "stacked"))
        assert steps_kept(alone) == steps_kept(stacked)
        for one, other in zip(found["in_turn"][name].rows, found["stacked"][name].rows, strict=True):
            assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-3)


def test_a_killed_training_goes_on_to_the_same_states(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_one(recipe(), whole)

    def until_step_25():
        def watch(step, steps, loss):
            if step == 25:
                os.kill(os.getpid(), signal.SIGKILL)

        train_one(recipe(), killed, progress=watch)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(until_step_25), 0)[1]) == -signal.SIGKILL
    assert max(steps_kept(killed)) == 20
    found = train_one(recipe(), killed)
    assert found.resumed and weights(killed) == weights(whole)


def test_a_state_that_was_lost_is_made_again(tmp_path):
    train_one(recipe(), tmp_path)
    before = weights(tmp_path)
    assert train_one(recipe(), tmp_path).resumed  # finished: read back
    for lost in ("step20", "step30"):  # one of the schedule, one of an event
        shutil.rmtree(tmp_path / "checkpoints" / lost)
        assert not train_one(recipe(), tmp_path).resumed
        assert weights(tmp_path) == before


def test_pairs_as_text_are_read_as_the_model_was_trained(tmp_path):
    shapes = {QUADRATIC: "3 5 8", ShapeSettings(width=8, heads=2): "3 5 = 8"}
    shapes[ShapeSettings(width=8, heads=2, layers=2, power=True)] = "3 + 5 = 8"
    for number, (shape, expected) in enumerate(shapes.items()):
        own = recipe(shape=shape, steps=1)
        row = np.flatnonzero((own.task.left == 3) & (own.task.right == 5))
        assert own.texts(row) == [expected]
        train_one(own, tmp_path / str(number))
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / str(number) / "checkpoints" / "step1")
        ids = tokenizer(own.texts(row))["input_ids"]
        model = own.model()
        logits = model(torch.tensor(ids)).logits[0, len(ids[0]) - 2]
        assert torch.allclose(logits, model.answer_logits(torch.tensor([3]), torch.tensor([5]))[0], atol=1e-6)


def test_recipes_of_one_family_differ_in_seed_and_rate_alone():
    assert recipe().family() == recipe(1).family() == recipe(learning_rate=0.5).family()
    assert len({recipe().family(), recipe(weight_decay=0.0).family(), recipe(batch=7).family()}) == 3


def test_batches_are_shuffled_epochs(tmp_path):
    own = recipe(batch=20)
    rows = torch.cat([own.order()(step) for step in range(len(own.split.train) // 20)])
    assert len(rows.unique()) == len(rows)


def test_shapes_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="width 10 is no multiple of 4 heads"):
        ShapeSettings(width=10)
    with pytest.raises(ValueError, match="a quadratic_mlp has its width alone"):
        ShapeSettings(kind="quadratic_mlp", layers=2)


# --- the known answers ------------------------------------------------------------------------------------------------


def trained(tmp_path, shape: ShapeSettings, seed: int, **more) -> Transition:
    """p = 59, 40 % of the pairs, one thread."""
    training = GrokkingTraining(keep=None, **more)
    own = GrokkingRecipe(ArithmeticTask("addition", 59), shape, training, 0.4, seed=seed)
    rows = train_one(own, tmp_path / f"{seed}").rows
    names = ("step", "train_accuracy", "test_accuracy")
    return date_transition(Curves.of({name: [row[name] for row in rows if "test_loss" in row] for name in names}))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_square_model_memorizes_by_step_60_and_generalizes_by_step_600(tmp_path, seed):
    shape = ShapeSettings(kind="quadratic_mlp", width=256)
    found = trained(tmp_path, shape, seed, steps=600, learning_rate=0.01, weight_decay=1.0)
    assert found.memorization.step <= 60
    assert 200 < found.generalization.step <= 600 and found.dated
    assert found.accuracy_at_memorization < 0.05  # nothing leaks: inputs are not symmetric


def test_without_weight_decay_the_square_model_memorizes_and_never_generalizes(tmp_path):
    shape = ShapeSettings(kind="quadratic_mlp", width=256)
    found = trained(tmp_path, shape, 0, steps=600, learning_rate=0.01, weight_decay=0.0)
    assert found.memorization.step <= 60
    assert found.generalization.step is None and found.verdict == "never generalizes"


def test_the_transformer_memorizes_long_before_it_generalizes_and_without_decay_never_does(tmp_path):
    shape = ShapeSettings(mlp=256)
    found = trained(tmp_path, shape, 1, steps=850, learning_rate=0.003, weight_decay=2.0)
    assert found.memorization.step <= 100
    assert 300 < found.generalization.step <= 850 and found.dated
    control = trained(tmp_path / "control", shape, 1, steps=850, learning_rate=0.003, weight_decay=0.0)
    assert control.memorization.step <= 100 and control.generalization.step is None
