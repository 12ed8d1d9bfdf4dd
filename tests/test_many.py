"""Many trainings in turn, in worker processes and stacked: equal results, told progress, results kept on the disk."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_many_kill import worker_processes
from tiny_recipes import MuonRecipe, TinyRecipe, same_results, tiny_recipe
from torch.nn import functional

from infocomp.training.many import Choice, choose, cores, seconds_a_step, train_many
from infocomp.training.recipe import RESULT, MemberResult, read_result, train_one
from infocomp.training.stacked import StackedTraining
from infocomp.training.token_recipe import TokenRecipe, score_rows

WAYS = ("in_turn", "processes", "stacked")
RECIPES: dict[str, TokenRecipe] = {
    f"{architecture} {number}": tiny_recipe(seed, rows, architecture=architecture, width=32, learning_rate=rate)
    for architecture in ("gpt2", "gpt_neox")
    for number, (seed, rows, rate) in enumerate([(0, 12, 0.02), (1, 40, 0.05), (2, 17, 0.002), (3, 5, 0.02)])
}  # the last of each has fewer rows than a batch, and so is a family of its own


class Told:
    """Progress as it was told."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}
        self.losses: dict[str, list[float]] = {}
        self.notes: list[str] = []

    def advance(self, name: str, steps: int, loss: float) -> None:
        self.steps.setdefault(name, []).append(steps)
        self.losses.setdefault(name, []).append(loss)

    def totals(self) -> dict[str, int]:
        return {name: sum(steps) for name, steps in self.steps.items()}


def trained(recipes, out, mode, **options) -> tuple[dict[str, MemberResult], Told]:
    told = Told()
    with train_many(recipes, out, mode=mode, advance=told.advance, note=told.notes.append, **options) as many:
        return {name: many.result(name) for name in recipes}, told


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def separate(folder) -> dict[str, MemberResult]:
    return {name: train_one(recipe, folder / "separate" / name) for name, recipe in RECIPES.items()}


@pytest.fixture(scope="module")
def ways(folder) -> dict[str, tuple[dict[str, MemberResult], Told]]:
    return {way: trained(RECIPES, folder / way, way, workers=2) for way in WAYS}


# --- equal results ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", list(RECIPES))
def test_every_way_gives_the_results_of_separate_training(ways, separate, way, name):
    """30 steps in float64, clipped and decayed, each member with its own seed, data and learning rate."""
    found = ways[way][0][name]
    same_results(found, separate[name])
    assert not found.resumed and found.seconds > 0


def test_separate_training_is_the_loop_that_anyone_would_write(separate):
    for name, recipe in RECIPES.items():
        model, rows, order = recipe.model(), torch.from_numpy(recipe.train), recipe.order()
        rate = recipe.training.learning_rate
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.1)
        clipped = 0
        for step in range(30):
            for group in optimizer.param_groups:
                group["lr"] = rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / 30)))
            batch = rows[order(step)]
            optimizer.zero_grad()
            functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten()).backward()
            clipped += float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)) > 0.3
            optimizer.step()
        assert clipped > 0, "a clip that never acts would prove nothing"
        np.testing.assert_allclose(separate[name].arrays["train_nats"], score_rows(model, recipe.train).nats, rtol=1e-9)
        changed = np.abs(separate[name].arrays["train_nats"] - score_rows(recipe.model(), recipe.train).nats).max()
        assert changed > 0.05, "training moved something"


@pytest.mark.parametrize("precision", ["float32", "bfloat16_mixed", "bfloat16"])
def test_stacked_training_agrees_in_every_precision_as_far_as_its_rounding_goes(tmp_path, precision):
    recipes = {str(seed): tiny_recipe(seed, precision=precision, steps=20) for seed in range(3)}
    stacked, _ = trained(recipes, tmp_path / "stacked", "stacked")
    for name, recipe in recipes.items():
        alone, here = train_one(recipe, tmp_path / name), stacked[name]
        before = score_rows(recipe.model(), recipe.train).nats.sum()
        learnt = before - alone.arrays["train_nats"].sum()
        off = abs(here.arrays["train_nats"].sum() - alone.arrays["train_nats"].sum())
        assert learnt > 3 and off < (1e-3 if precision == "float32" else 0.1) * learnt, (off, learnt)


def test_a_group_larger_than_a_stack_may_be_is_trained_in_several(tmp_path, separate):
    recipes = {name: recipe for name, recipe in RECIPES.items() if name.startswith("gpt2")}
    told = Told()
    with train_many(recipes, tmp_path, mode="stacked", advance=told.advance) as many:
        many.choices[""] = Choice("stacked", 1, {}, members=2)
        first = many.result("gpt2 0")
        assert told.totals() == {"gpt2 0": 30, "gpt2 1": 30}, "two at a time"
        found = {"gpt2 0": first} | {name: many.result(name) for name in list(recipes)[1:]}
    for name in recipes:
        same_results(found[name], separate[name])
    assert told.totals() == dict.fromkeys(recipes, 30)


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_progress_adds_up_to_all_steps_of_every_member(ways, way):
    told = ways[way][1]
    assert told.totals() == dict.fromkeys(RECIPES, 30)
    assert all(step > 0 for steps in told.steps.values() for step in steps)
    assert all(0 < losses[-1] < 3 for losses in told.losses.values())
    names = {"in_turn": "one after the other", "processes": "in worker processes", "stacked": "stacked"}
    assert told.notes == [f"8 trainings {names[way]}, 1 thread(s)"]


def test_workers_are_gone_when_the_block_ends_and_threads_are_as_before(ways):
    assert ways["processes"][0] and not worker_processes()
    assert torch.get_num_threads() == 1


# --- on the disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_what_is_finished_comes_back_from_the_disk_and_is_not_trained_again(ways, folder, way):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob(RESULT)}
    other = WAYS[WAYS.index(way) - 2]  # whichever way is asked for now
    again, told = trained(RECIPES, folder / way, other)
    for name, first in ways[way][0].items():
        assert again[name].resumed and again[name].seconds == first.seconds and again[name].rows == first.rows
        for key, array in first.arrays.items():
            np.testing.assert_array_equal(again[name].arrays[key], array)
    assert told.totals() == dict.fromkeys(RECIPES, 30) and told.notes == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob(RESULT)} == before
    assert not list((folder / way).rglob("state.pt")), "resume states of what is finished are of no use"


@pytest.mark.parametrize("way", ["in_turn", "stacked"])
@pytest.mark.parametrize("change", [{"seed": 9}, {"learning_rate": 0.03}, {"rows": 13}, {"steps": 31}, {"layers": 2}])
def test_another_recipe_in_the_same_folder_is_not_taken_for_this_one(tmp_path, way, change):
    one, other = tiny_recipe(steps=10), tiny_recipe(**{"steps": 10, **change})
    trained({"run": one}, tmp_path, way)
    found, _ = trained({"run": other}, tmp_path, way)
    assert not found["run"].resumed
    same_results(found["run"], train_one(other, tmp_path / "alone"))
    assert read_result(tmp_path / "run", one) is None and read_result(tmp_path / "run", other) is not None


def damaged(kind: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    if kind == "of another program":
        np.savez(buffer, a=np.arange(3))
    elif kind == "of another version":
        np.savez(buffer, about=np.frombuffer(json.dumps({"rows": []}).encode(), np.uint8))
    elif kind == "not text":
        np.savez(buffer, about=np.frombuffer(b"\xff\xfe{", np.uint8))
    elif kind == "one array":
        np.save(buffer, np.arange(3))
    elif kind == "a flipped bit":
        place = data.index(b"train_nats.npy") + 200
        buffer.write(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    else:
        buffer.write({"empty": b"", "cut": data[: len(data) // 2], "garbage": bytes(range(256)) * 4}[kind])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["empty", "cut", "garbage", "of another program", "of another version", "not text", "one array", "a flipped bit"],
)
def test_a_damaged_result_is_made_again(tmp_path, kind):
    recipe = tiny_recipe(steps=5)
    first = train_one(recipe, tmp_path / "run")
    path = tmp_path / "run" / RESULT
    whole = path.read_bytes()
    path.write_bytes(damaged(kind, whole))
    again, _ = trained({"run": recipe}, tmp_path, "in_turn")
    assert not again["run"].resumed
    same_results(again["run"], first, rtol=0)
    assert read_result(tmp_path / "run", recipe) is not None and len(path.read_bytes()) >= len(whole) - 200


def test_whatever_byte_of_a_result_is_damaged_reading_it_never_raises_or_lies(tmp_path):
    recipe = tiny_recipe(steps=3)
    first = train_one(recipe, tmp_path)
    path = tmp_path / RESULT
    whole = bytearray(path.read_bytes())
    unread = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(bytes(whole[:place]) + bytes([whole[place] ^ 0xFF]) + bytes(whole[place + 1 :]))
        found = read_result(tmp_path, recipe)
        unread += found is None
        if found is not None:  # a byte of the container that nothing depends on
            same_results(found, first, rtol=0)
    assert unread > len(whole) // 14, "most bytes matter"


def test_an_unknown_name_is_told_with_those_that_there_are(tmp_path):
    with pytest.raises(KeyError, match="no training named 'b'; there are a"):
        train_many({"a": tiny_recipe()}, tmp_path).result("b")


# --- the choice -------------------------------------------------------------------------------------------------------


def chosen(recipes, workers: int | None = 2) -> Choice:
    return choose(recipes, workers, torch.device("cpu"))


def test_what_is_soon_done_is_done_in_turn_without_a_trial_of_the_others():
    assert chosen([tiny_recipe(steps=10**6)]) == Choice("in_turn", 1, {}), "one alone"
    assert chosen([tiny_recipe(seed) for seed in range(4)]).mode == "in_turn", "a fraction of a second"
    assert str(chosen([tiny_recipe()])) == "one after the other, 1 thread(s)"


def test_long_trainings_share_the_cores_and_expect_less_time_than_in_turn():
    recipes = [tiny_recipe(seed, steps=200_000) for seed in range(8)]
    found = chosen(recipes)
    assert found.mode in ("processes", "stacked") and found.seconds.keys() == {"in turn", "processes", "stacked"}
    in_turn = found.seconds["in turn"]
    assert found.seconds["processes"] == pytest.approx(in_turn / 2 + 5)
    assert found.seconds[found.mode] == min(found.seconds.values()) < 0.95 * in_turn
    one_step = seconds_a_step(recipes[:1], torch.device("cpu"), 1)
    assert 0.1 < in_turn / (8 * 200_000 * one_step) < 10, "a busy machine aside, steps times seconds a step"
    assert "(expected: in turn" in str(found)


def test_processes_gain_nothing_where_one_training_is_longer_than_all_others():
    one = tiny_recipe(0, steps=400_000, layers=3)
    recipes = [one, *(tiny_recipe(seed, steps=2) for seed in range(1, 4))]
    found = chosen(recipes)
    assert found.mode == "in_turn" and found.seconds["processes"] > 0.95 * found.seconds["in turn"]
    assert "stacked" not in found.seconds, "the costliest is alone in its family"


def test_one_core_and_muon_leave_nothing_but_in_turn():
    recipes = [tiny_recipe(seed, kind=MuonRecipe, steps=200_000) for seed in range(3)]
    assert chosen(recipes, workers=1).seconds.keys() == {"in turn"}
    assert chosen(recipes, workers=1).mode == "in_turn" and cores() >= 1


def test_auto_trains_and_says_how(tmp_path):
    recipes: dict[str, TokenRecipe] = {str(seed): tiny_recipe(seed, steps=5) for seed in range(3)}
    found, told = trained(recipes, tmp_path, "auto")
    assert all(one.status == "ok" for one in found.values())
    assert told.notes == ["3 trainings one after the other, 1 thread(s)"]


def test_a_stack_that_is_finished_does_not_decide_how_later_trainings_are_done(tmp_path):
    trained({str(seed): tiny_recipe(seed, steps=5) for seed in range(3)}, tmp_path, "stacked")
    later: dict[str, TokenRecipe] = {str(seed): tiny_recipe(seed, steps=5) for seed in range(3, 5)}
    _, told = trained(later, tmp_path, "auto")
    assert told.notes[0].startswith("2 trainings one after the other")


# --- what cannot be stacked -------------------------------------------------------------------------------------------


def test_stacks_of_unlike_models_or_of_another_optimizer_are_refused():
    with pytest.raises(ValueError, match="need one shape and one batch size, got 2 families"):
        StackedTraining({"a": tiny_recipe(), "b": tiny_recipe(layers=2)})
    with pytest.raises(ValueError, match="stacked models are moved by adamw, not muon; train them in turn"):
        StackedTraining({"a": tiny_recipe(kind=MuonRecipe), "b": tiny_recipe(1, kind=MuonRecipe)})


def test_a_way_or_a_number_of_workers_that_there_is_not_is_refused(tmp_path):
    recipes = {"a": tiny_recipe(), "b": tiny_recipe(1)}
    with pytest.raises(ValueError, match="mode must be auto, in_turn, processes or stacked, got 'parallel'"):
        train_many(recipes, tmp_path, mode="parallel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers must be at least 1, got -1"):
        train_many(recipes, tmp_path, workers=-1)


def test_recipes_are_what_their_fields_say():
    """The tests' own recipes: faults are no part of the identity, so that a faulty run's state serves a sound one."""
    sound, faulty = tiny_recipe(), tiny_recipe(pause=0.1, dies_at=3, states=5.0)
    assert isinstance(sound, TinyRecipe) and sound.identity() == faulty.identity()
    assert sound.family() == faulty.family()
