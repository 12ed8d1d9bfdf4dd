"""Revision names of published series, their order, and the choice among them."""

import doctest
import random

import pytest

from infocomp.checkpoints import schedule
from infocomp.checkpoints.schedule import Revision, parse_revision, select, tokens_per_step

PYTHIA = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 144_000, 1000)]


def series(names, batch=None):
    return [parse_revision(name, batch) for name in names]


def pythia():
    return series(["main", *(f"step{step}" for step in PYTHIA)], 2_097_152)


def names(revisions):
    return [revision.name for revision in revisions]


@pytest.mark.parametrize(
    ("name", "stage", "ingredient", "step", "tokens"),
    [
        ("step143000", None, None, 143_000, None),
        ("step1000-tokens4B", None, None, 1000, 4_000_000_000),
        ("stage1-step150-tokens1B", "stage1", None, 150, 1_000_000_000),
        ("stage2-ingredient1-step11931-tokens50B", "stage2", 1, 11_931, 50_000_000_000),
        ("stage1-step1413814", "stage1", None, 1_413_814, None),
        ("stage2-ingredient2-step47684", "stage2", 2, 47_684, None),
        ("step-001000-2BT", None, None, 1000, 2_000_000_000),
        ("step-524000-1.05TT", None, None, 524_000, 1_050_000_000_000),
        ("checkpoint-400", None, None, 400, None),
        ("step_360", None, None, 360, None),
        ("main", None, None, None, None),
        ("optimizer", None, None, None, None),
        ("step512.tmp", None, None, None, None),
        ("old-step512", None, None, None, None),
    ],
)
def test_names_of_published_series_are_read(name, stage, ingredient, step, tokens):
    assert parse_revision(name) == Revision(name, stage, ingredient, step, tokens, tokens is not None)


def test_tokens_come_from_the_batch_where_it_is_known_and_from_the_rounded_suffix_otherwise():
    assert parse_revision("step143000", tokens_per_step("EleutherAI/pythia-70m")).tokens == 299_892_736_000
    exact = parse_revision("step1000-tokens2B", 2_097_152)
    assert (exact.tokens, exact.tokens_rounded) == (2_097_152_000, False)
    rounded = parse_revision("step1000-tokens2B")
    assert (rounded.tokens, rounded.tokens_rounded) == (2_000_000_000, True)
    assert parse_revision("step0", 2_097_152).tokens == 0


def test_the_batch_of_the_first_stage_is_not_taken_for_later_stages():
    assert parse_revision("stage1-step10", 4_194_304).tokens == 41_943_040
    assert parse_revision("stage2-step10", 4_194_304).tokens is None


@pytest.mark.parametrize(
    ("repo", "tokens"),
    [
        ("EleutherAI/pythia-70m", 2_097_152),
        ("EleutherAI/pythia-2.8b-deduped-v0", 2_097_152),
        ("EleutherAI/pythia-410m-seed9", 2_097_152),
        ("allenai/Olmo-3-1025-7B", 4_194_304),
        ("allenai/Olmo-3-1125-32B", 8_388_608),
        ("allenai/Olmo-3-7B-Think-SFT", None),
        ("allenai/OLMo-2-1124-7B", None),
        ("someone/my-pythia-70m", None),
    ],
)
def test_the_batch_of_known_families_is_told_from_the_repository_name(repo, tokens):
    assert tokens_per_step(repo) == tokens


def test_revisions_are_ordered_by_stage_ingredient_and_step_whatever_order_they_come_in():
    wanted = [
        "stage1-step0",
        "stage1-step900",
        "stage1-step1000",
        "stage2-ingredient1-step10",
        "stage2-ingredient2-step5",
        "stage3-step1",
    ]
    shuffled = random.Random(0).sample(wanted, len(wanted))
    assert names(select(series(["main", *shuffled]), "all")) == wanted


def test_all_leaves_out_names_without_a_step_unless_there_is_nothing_else():
    assert len(select(pythia(), "all")) == 154
    assert names(select(series(["main"]), "all")) == ["main"]


def test_a_list_takes_names_and_steps_in_training_order_and_once():
    assert names(select(pythia(), ["step512", 1000, 0, "step0", "main"])) == ["step0", "step512", "step1000", "main"]


def test_a_range_keeps_revisions_at_least_so_many_steps_apart():
    assert names(select(pythia(), {"from": 1000, "to": 40_000, "every": 10_000})) == [
        f"step{step}" for step in (1000, 11_000, 21_000, 31_000)
    ]
    assert names(select(pythia(), {"to": 8})) == ["step0", "step1", "step2", "step4", "step8"]
    assert names(select(pythia(), {"from": "step142000"})) == ["step142000", "step143000"]
    uneven = series(f"stage1-step{step}" for step in (0, 150, 600, 700, 850, 900, 1000))
    assert [r.step for r in select(uneven, {"every": 300})] == [0, 600, 900]


def test_a_range_by_name_runs_over_stages_and_counts_steps_within_each():
    staged = series(["stage1-step0", "stage1-step500", "stage1-step900", "stage2-step0", "stage2-step500"])
    chosen = select(staged, {"from": "stage1-step500", "to": "stage2-step500", "every": 500})
    assert names(chosen) == ["stage1-step500", "stage2-step0", "stage2-step500"]


def test_log_spaced_keeps_both_ends_and_is_even_in_the_logarithm_of_step_plus_one():
    chosen = [revision.step for revision in select(pythia(), {"log_spaced": 7})]
    # 143001^(i/6) − 1 = 0, 6.2, 51.3, 377, 2733, 19773, 143000; nearest in log(step + 1)
    assert chosen == [0, 8, 64, 512, 3000, 20_000, 143_000]


@pytest.mark.parametrize("n", [2, 3, 12, 40, 153, 154, 500])
def test_log_spaced_gives_exactly_n_different_revisions_in_order(n):
    chosen = [revision.step or 0 for revision in select(pythia(), {"log_spaced": n})]
    assert len(chosen) == min(n, 154)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, 143_000)


def test_log_spaced_gives_n_revisions_also_where_they_lie_closer_than_the_sequence():
    # targets 10 and 100 have one revision near them, which serves the second
    crowded = series(f"step{step}" for step in (0, 1, 2, 3, 1000))
    assert [r.step for r in select(crowded, {"log_spaced": 4})] == [0, 2, 3, 1000]


def test_log_spaced_counts_later_stages_from_the_end_of_the_one_before():
    staged = series(["stage1-step0", "stage1-step1000", *(f"stage2-step{step}" for step in (1, 10, 100, 2000))])
    # positions 0, 1000, 1001, 1010, 1100, 3000: the middle of three is the one nearest to 54
    assert names(select(staged, {"log_spaced": 3})) == ["stage1-step0", "stage1-step1000", "stage2-step2000"]


def test_a_revision_that_does_not_exist_is_named_with_its_nearest_three():
    with pytest.raises(ValueError) as error:
        select(pythia(), ["step9100"], "EleutherAI/pythia-70m")
    assert str(error.value) == (
        "no revision 'step9100' in EleutherAI/pythia-70m; closest are 'step9000', 'step10000', 'step8000'"
    )
    with pytest.raises(ValueError, match=r"no step 3 in the series; closest are 'step2', 'step4', 'step1'"):
        select(pythia(), [3])
    with pytest.raises(ValueError, match=r"no revision 'mian' in the series; closest are 'main', "):
        select(pythia(), ["mian"])
    staged = series(["stage1-step10", "stage1-step20", "stage2-step11", "stage2-step40"])
    with pytest.raises(ValueError, match="closest are 'stage2-step11', 'stage2-step40', 'stage1-step10'"):
        select(staged, ["stage2-step10"])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("step1", r"choice is 'step1': write 'all', a list, a range or log_spaced \(a single name as \['step1'\]\)"),
        ([], "choice is an empty list: name at least one of the 155 revisions of the series"),
        ({}, "choice has no keys: from, to and every are known, or log_spaced alone"),
        ({"form": 1}, "choice has 'form': from, to and every are known, or log_spaced alone"),
        (
            {"log_spaced": 1},
            "log_spaced is 1: the first and the last revision are always kept, so at least 2 are needed",
        ),
        ({"every": 0}, "every is 0: revisions at least 1 step apart are needed"),
        ({"from": 5, "to": 7}, "no revision of the series lies from 5 to 7: there are 154, step0 to step143000"),
        ({"from": "step3"}, "no revision 'step3' in the series; closest are 'step2', 'step4', 'step1'"),
    ],
)
def test_a_choice_that_means_nothing_is_one_sentence(choice, message):
    with pytest.raises(ValueError, match=message):
        select(pythia(), choice)


def test_a_step_that_several_stages_have_must_be_given_by_name():
    staged = series(["stage1-step10", "stage2-step10"])
    with pytest.raises(ValueError) as error:
        select(staged, [10], "x/y")
    assert str(error.value) == "step 10 of x/y is 2 revisions (stage1-step10, stage2-step10): give the full name"


def test_log_spaced_without_steps_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"log_spaced needs revisions with a step, and x/y has none: name them in a list"
    ):
        select(series(["main"]), {"log_spaced": 3}, "x/y")


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(schedule).failed == 0
