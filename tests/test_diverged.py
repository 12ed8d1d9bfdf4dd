"""A training that diverges, by its learning rate or by a broken weight: it fails with a sentence, the others are as
they are by themselves."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recipes import SickRecipe, TinyRecipe, same_results, tiny_recipe

from infocomp.training.many import train_many
from infocomp.training.recipe import RESULT, MemberResult, Recipe, train_one
from infocomp.training.stacked import StackedTraining

WAYS = ("in_turn", "processes", "stacked")
RECIPES: dict[str, Recipe] = {
    "sound": tiny_recipe(0, precision="float32"),
    "fast": tiny_recipe(1, precision="float32", learning_rate=1e30),
    "sick": tiny_recipe(2, precision="float32", kind=SickRecipe),
    "last": tiny_recipe(3, precision="float32", rows=30),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("diverged")


@pytest.fixture(scope="module")
def ways(folder) -> dict[str, dict[str, MemberResult]]:
    found = {}
    for way in WAYS:
        with train_many(RECIPES, folder / way, mode=way, workers=1) as many:
            found[way] = {name: many.result(name) for name in RECIPES}
    return found


@pytest.mark.parametrize("way", WAYS)
def test_who_diverges_fails_with_a_sentence_that_says_when_and_what_to_do(ways, folder, way):
    for name, least in (("fast", 1), ("sick", 0)):
        failed = ways[way][name]
        assert failed.status == "failed" and not failed.arrays and not (folder / way / name / RESULT).exists()
        told = re.fullmatch(
            r"(loss|gradient norm|loss or gradient) became (nan|inf|NaN or infinite) at step (\d+) of 30; "
            r"lower the learning rate, lengthen the warm-up or clip the gradient",
            failed.message or "",
        )
        assert told, failed.message
        step = int(told[3])
        assert least <= step < 10 and failed.rows[-1]["step"] == step, "rows up to where it ended"
        assert failed.rows[-1]["status"] == "failed" and failed.rows[-1]["message"] == failed.message
        assert not math.isfinite(failed.rows[-1].get("loss", math.nan))
        assert all(row["status"] == "ok" for row in failed.rows[:-1])


def test_all_ways_see_it_at_the_same_step(ways):
    for name in ("fast", "sick"):
        steps = {re.findall(r"at step (\d+)", ways[way][name].message)[0] for way in WAYS}
        assert len(steps) == 1, steps


@pytest.mark.parametrize("way", WAYS)
def test_the_others_are_as_if_they_had_been_trained_alone(ways, folder, way):
    for name in ("sound", "last"):
        same_results(ways[way][name], train_one(RECIPES[name], folder / "alone" / name), rtol=1e-5)
        assert np.isfinite(ways[way][name].arrays["train_nats"]).all()


def test_in_float64_one_that_diverges_moves_its_neighbours_not_at_all(tmp_path):
    """Stacked with a broken member, or with a sound one in its place: the same numbers, bit for bit."""

    def others(middle: Recipe, out: str) -> list[MemberResult]:
        recipes = {"a": tiny_recipe(0), "b": middle, "c": tiny_recipe(2)}
        with train_many(recipes, tmp_path / out, mode="stacked") as many:
            return [many.result("a"), many.result("c")]

    sound = others(tiny_recipe(1), "sound")
    for middle in (tiny_recipe(1, kind=SickRecipe), tiny_recipe(1, learning_rate=1e200)):
        for found, expected in zip(
            others(middle, repr(middle.settings)[:40] + type(middle).__name__), sound, strict=True
        ):
            same_results(found, expected, rtol=0)


def test_one_that_failed_stays_failed_when_it_is_asked_for_again(ways, folder):
    with train_many(RECIPES, folder / "in_turn", mode="in_turn") as many:
        again = many.result("fast")
    assert again.status == "failed" and again.message == ways["in_turn"]["fast"].message
    assert many.result("sound").resumed


def test_a_stack_in_which_all_diverge_ends_early_and_a_sound_recipe_takes_the_folder_over(tmp_path):
    bad: dict[str, Recipe] = {
        name: tiny_recipe(seed, learning_rate=1e200, steps=10**6) for seed, name in enumerate("ab")
    }
    with train_many(bad, tmp_path, mode="stacked") as many:
        assert [many.result(name).status for name in "ab"] == ["failed", "failed"]
    good = tiny_recipe(0)
    with train_many({"a": good}, tmp_path, mode="stacked") as many:
        same_results(many.result("a"), train_one(good, tmp_path / "alone"))


def test_who_is_frozen_stays_frozen_through_a_resume(tmp_path):
    recipes = {"a": tiny_recipe(0), "b": tiny_recipe(1, learning_rate=1e200)}
    first = StackedTraining(recipes)
    for _ in range(12):
        first.update()
    assert first.alive.tolist() == [True, False]
    before = {name: parameter.detach().clone() for name, parameter in first.parameters.items()}
    first.update()
    for name, parameter in first.parameters.items():
        assert torch.equal(parameter[1], before[name][1]) and not torch.equal(parameter[0], before[name][0]), name
        assert all(moments[name].isfinite().all() for moments in first.moments), name
    second = StackedTraining(recipes)
    second._load(first._state())
    assert second.alive.tolist() == [True, False] and second.died.tolist() == first.died.tolist() and second.step == 13
    found = second.run(tmp_path, {name: tmp_path / name for name in "ab"}, lambda name, steps, loss: None)
    assert found["b"].status == "failed" and f"at step {int(first.died[1])} of 30" in str(found["b"].message)
    np.testing.assert_allclose(
        found["a"].arrays["train_nats"], train_one(recipes["a"], tmp_path / "alone").arrays["train_nats"], rtol=1e-9
    )


def test_the_recipes_of_this_file_are_one_family():
    assert len({recipe.family() for recipe in RECIPES.values()}) == 1, "a stack holds sound and sick ones together"
    assert isinstance(RECIPES["sound"], TinyRecipe)
