"""What a row costs and whether it is emitted, against sums and greedy decoding written out; rows that are refused."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from infocomp.training import token_recipe
from infocomp.training.recipe import train_one
from infocomp.training.small_gpt import GPTSettings, SmallGPT
from infocomp.training.token_recipe import TokenRecipe, TokenTraining, score_rows

SHAPE = GPTSettings(width=16, heads=2, vocabulary=11, length=7, precision="float64")
TRAINING = TokenTraining(steps=12, batch=8, learning_rate=0.01, measure_every=5, record_every=4)


def rows_of(settings: GPTSettings, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, settings.vocabulary, (count, settings.length))


def opinionated(settings: GPTSettings, seed: int = 0) -> SmallGPT:
    """A model with strong preferences, so that some tokens are cheap and others dear."""
    model = SmallGPT(settings, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


@torch.no_grad()
def written_out(model: SmallGPT, row: np.ndarray) -> float:
    """−Σ ln p(token | before) of one row, a forward pass a token, p from exponentials."""
    settings, cost = model.settings, 0.0
    first = settings.length - settings.predicted
    for place in range(first, settings.length):
        seen = np.zeros(settings.length, int)
        seen[:place] = row[:place]  # what follows must not matter
        weights = np.exp(model(torch.from_numpy(seen)[None])[0, place - first].double().numpy())
        cost -= math.log(weights[row[place]] / weights.sum())
    return cost


@torch.no_grad()
def emitted(model: SmallGPT, row: np.ndarray) -> np.ndarray:
    """The row's first half and what greedy decoding makes of it, token by token from its own output."""
    settings = model.settings
    begin, first = settings.length - settings.length // 2, settings.length - settings.predicted
    made = np.zeros(settings.length, int)
    made[:begin] = row[:begin]
    for place in range(begin, settings.length):
        made[place] = int(model(torch.from_numpy(made)[None])[0, place - first].argmax())
    return made


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("bos", [True, False])
def test_the_code_length_of_a_row_is_the_sum_over_its_tokens(architecture, bos):
    settings = GPTSettings(**{**SHAPE.model_dump(), "architecture": architecture, "width": 32, "bos": bos})
    model, rows = opinionated(settings), rows_of(settings, 9)
    found = score_rows(model, rows)
    assert found.nats.dtype == np.float64
    np.testing.assert_allclose(found.nats, [written_out(model, row) for row in rows], rtol=1e-12)
    assert found.nats.std() > 1


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("length", [2, 6, 7])
def test_extracted_are_the_rows_that_greedy_decoding_really_emits(bos, length):
    settings = GPTSettings(**{**SHAPE.model_dump(), "bos": bos, "length": length})
    model = opinionated(settings)
    rows = rows_of(settings, 30)
    made = np.array([emitted(model, row) for row in rows])
    wrong = made.copy()
    half = length - length // 2
    for number, row in enumerate(wrong):  # one token of the second half is another
        place = half + number % (length - half)
        row[place] = (row[place] + 1) % settings.vocabulary
    assert score_rows(model, made).extracted.all()
    assert not score_rows(model, wrong).extracted.any()
    expected = (made == rows).all(1)
    np.testing.assert_array_equal(score_rows(model, rows).extracted, expected)
    mixed = np.where(np.arange(30)[:, None] % 3 == 0, made, wrong)
    np.testing.assert_array_equal(score_rows(model, mixed).extracted, np.arange(30) % 3 == 0)


def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(monkeypatch):
    model, rows = opinionated(SHAPE), rows_of(SHAPE, 23)
    whole = score_rows(model, rows)
    monkeypatch.setitem(token_recipe.SCORED_AT_ONCE, "cpu", 5 * 7 * 11)
    pieces = score_rows(model, rows)
    np.testing.assert_allclose(pieces.nats, whole.nats, rtol=1e-12)
    np.testing.assert_array_equal(pieces.extracted, whole.extracted)
    none = score_rows(model, rows[:0])
    assert len(none.nats) == len(none.extracted) == 0


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16_mixed"])
def test_sums_are_taken_wider_than_bfloat16(precision):
    """A sum of 7 costs near 2.4 in bfloat16 would move in steps of 1/8; here each row has a cost of its own."""
    settings = GPTSettings(**{**SHAPE.model_dump(), "precision": precision})
    rows = rows_of(settings, 40)
    nats = score_rows(SmallGPT(settings), rows).nats
    assert len(np.unique(nats)) == 40
    assert nats.mean() == pytest.approx(7 * math.log(11), rel=0.02), "untrained, every token costs about ln 11"


# --- the recipe -------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_cost_of_a_predicted_token():
    for bos in (True, False):
        settings = GPTSettings(**{**SHAPE.model_dump(), "bos": bos})
        recipe = TokenRecipe(settings, TRAINING, rows_of(settings, 9), rows_of(settings, 0))
        model = opinionated(settings)
        loss = float(recipe.loss(model, *recipe.data()).detach())
        assert loss == pytest.approx(score_rows(model, recipe.train).nats.mean() / settings.predicted, rel=1e-12)


def test_small_data_are_read_whole_each_step_and_larger_ones_in_shuffled_epochs():
    whole = TokenRecipe(SHAPE, TRAINING, rows_of(SHAPE, 8), rows_of(SHAPE, 0))
    assert [whole.order()(step).tolist() for step in (0, 7)] == [list(range(8))] * 2
    assert whole.tokens_per_step == 8 * 7
    large = TokenRecipe(SHAPE, TRAINING, rows_of(SHAPE, 20), rows_of(SHAPE, 0), seed=1)
    order = large.order()
    steps = [order(step) for step in range(5)]
    assert {len(step) for step in steps} == {8} and large.tokens_per_step == 8 * 7
    assert sorted(torch.cat(steps).tolist()) == sorted(list(range(20)) * 2)
    assert order(0).tolist() != TokenRecipe(SHAPE, TRAINING, large.train, large.held_out, seed=2).order()(0).tolist()


def test_a_training_tells_every_rows_cost_and_its_course(tmp_path):
    recipe = TokenRecipe(SHAPE, TRAINING, rows_of(SHAPE, 20), rows_of(SHAPE, 6, seed=1), seed=4)
    done = train_one(recipe, tmp_path)
    assert done.status == "ok" and not done.resumed and done.message is None and done.seconds > 0
    assert {name: (array.shape, array.dtype) for name, array in done.arrays.items()} == {
        "train_nats": ((20,), np.float64),
        "held_out_nats": ((6,), np.float64),
        "train_extracted": ((20,), bool),
        "held_out_extracted": ((6,), bool),
    }
    measured = {row["step"]: row for row in done.rows if "train_nats_per_token" in row}
    assert list(measured) == [0, 5, 10, 12] and [row["step"] for row in done.rows] == [0, 4, 5, 8, 10, 12]
    start = SmallGPT(SHAPE, 4)
    for split, rows in (("train", recipe.train), ("held_out", recipe.held_out)):
        at_start, at_end = score_rows(start, rows).nats.mean() / 7, done.arrays[f"{split}_nats"].mean() / 7
        assert measured[0][f"{split}_nats_per_token"] == pytest.approx(at_start, rel=1e-12)
        assert measured[12][f"{split}_nats_per_token"] == pytest.approx(at_end, rel=1e-12)
    assert measured[12]["train_nats_per_token"] < measured[0]["train_nats_per_token"] - 0.02
    rates = {row["step"]: row["learning_rate"] for row in done.rows if "learning_rate" in row}
    shares = {step: 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / 12)) for step in rates}
    assert rates == pytest.approx({step: 0.01 * share for step, share in shares.items()}), "a cosine to 2 %"


def test_no_held_out_rows_are_fine():
    recipe = TokenRecipe(SHAPE, TRAINING, rows_of(SHAPE, 3), rows_of(SHAPE, 0))
    assert recipe.measure(recipe.model()).keys() == {"train_nats_per_token"}
    assert len(recipe.finish(recipe.model())["held_out_nats"]) == 0


def test_identity_and_family_tell_what_they_should():
    def recipe(seed: int = 0, rows: int = 20, **training) -> TokenRecipe:
        changed = TRAINING.model_copy(update=training)
        return TokenRecipe(SHAPE, changed, rows_of(SHAPE, rows), rows_of(SHAPE, 4), seed)

    base = recipe()
    for same in (recipe(seed=1), recipe(rows=50), recipe(learning_rate=0.5)):
        assert same.family() == base.family(), "seeds, data and learning rates may stand in one stack"
    for other in (recipe(rows=5), recipe(batch=9), recipe(steps=13), recipe(clip_norm=None)):
        assert other.family() != base.family()
    assert recipe().identity() == base.identity()
    other_order = TokenRecipe(SHAPE, TRAINING, base.train[::-1], base.held_out)
    other_fresh = TokenRecipe(SHAPE, TRAINING, base.train, base.held_out + 1 - 1)
    assert other_order.identity() != base.identity() and other_fresh.identity() == base.identity()
    assert recipe(rows=21).identity() != base.identity() and recipe(batch=9).identity() != base.identity()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "held_out", "sentence"),
    [
        (np.zeros((3, 6), int), None, r"train holds rows of shape \(3, 6\), the model reads rows of 7 tokens; cut the"),
        (None, np.zeros((3, 8), int), r"held_out holds rows of shape \(3, 8\), the model reads rows of 7 tokens"),
        (np.zeros(7, int), None, r"train holds rows of shape \(7,\)"),
        (np.full((2, 7), 11), None, "train holds token 11, the model's vocabulary is 0 to 10; give it a larger"),
        (None, np.full((2, 7), -1), "held_out holds token -1, the model's vocabulary is 0 to 10"),
        (np.zeros((0, 7), int), None, "train holds no row; at least one is needed to train on"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_one_sentence(train, held_out, sentence):
    good = rows_of(SHAPE, 3)
    with pytest.raises(ValueError, match=sentence):
        TokenRecipe(SHAPE, TRAINING, good if train is None else train, good if held_out is None else held_out)


def test_tokens_must_be_whole_numbers():
    with pytest.raises(TypeError, match="train holds float64, tokens are whole numbers"):
        TokenRecipe(SHAPE, TRAINING, rows_of(SHAPE, 3) + 0.5, rows_of(SHAPE, 3))


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"final_share": 1.5}, {"beta2": 1.0}, {"weight_decay": -1.0}],
)
def test_trainings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        TokenTraining(**change)
