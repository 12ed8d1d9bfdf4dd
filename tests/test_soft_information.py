"""The soft estimator: by hand, against closed forms, against its slow twin, and the laws that it keeps."""

import math

import numpy as np
import pytest
import torch

from infocomp.estimators import Groups, LabelGroups, SoftInformation
from infocomp.estimators.groups import PIECE
from infocomp.estimators.sphere import draw_anchors
from infocomp.units import BITS_PER_NAT


def picked(estimates, quantity, label="", draw="mean", weighting="frequency"):
    [one] = [e for e in estimates if (e.quantity, e.label, e.draw, e.weighting) == (quantity, label, draw, weighting)]
    return one


def planted(n=3000, dim=32, labels=40, strength=2.0, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.3, n) % labels
    following = np.roll(ids, -1)
    means = rng.standard_normal((labels, dim))
    rows = torch.from_numpy(rng.standard_normal((n, dim)) + strength * means[ids] + 0.5 * means[following])
    return rows, ids, following, np.repeat(np.arange(n // 50), 50)


def fed(state, rows, ids, following, documents, pieces=1):
    for part in np.array_split(np.arange(len(rows)), pieces):
        state.update(rows[part], {"token": ids[part], "next_token": following[part]}, documents[part])
    return state


def slow_information(rows, ids, anchors, temperature):
    """As the definition says it, label by label, in float64."""
    rows = rows.double()
    z = rows / rows.norm(dim=1, keepdim=True)
    a = torch.softmax(z @ anchors.T / temperature, dim=1)
    total = torch.special.entr(a.mean(0)).sum()
    conditional = sum(
        torch.special.entr(a[ids == label].mean(0)).sum() * (ids == label).mean() for label in np.unique(ids)
    )
    return float(total), float(total - conditional), float(total - torch.special.entr(a).sum(1).mean())


def test_equals_its_slow_twin():
    rows, ids, following, documents = planted(800)
    state = fed(SoftInformation(32, bins=30, draws=2, seed=4), rows, ids, following, documents)
    estimates = state.estimate()
    anchors = draw_anchors(32, 30, 2, 4)
    for draw in range(2):
        entropy, information, context = slow_information(rows, ids, anchors[draw], state.temperature)
        assert picked(estimates, "entropy", draw=str(draw)).value == pytest.approx(entropy * BITS_PER_NAT, abs=1e-9)
        found = picked(estimates, "complexity", "token", str(draw))
        assert found.value == pytest.approx(information * BITS_PER_NAT, abs=1e-9)
        assert picked(estimates, "context_complexity", draw=str(draw)).value == pytest.approx(
            context * BITS_PER_NAT, abs=1e-9
        )
        assert picked(estimates, "regularity", "token", str(draw)).value == pytest.approx(information / entropy)


def test_codes_that_sit_on_anchors_give_the_entropy_of_their_label():
    """K codes on the anchors, sharp temperature: I(label; J) = H(label), and about independent labels nothing."""
    anchors = draw_anchors(64, 16, 1, 0)
    ids = np.repeat(np.arange(16), 50)
    state = SoftInformation(64, anchors=anchors, temperature=1e-3)
    state.update(anchors[0][ids], {"code": ids, "none": np.tile(np.arange(16), 50)})
    estimates = state.estimate()
    assert picked(estimates, "complexity", "code").value == pytest.approx(4.0, abs=1e-6)
    assert picked(estimates, "complexity", "code").ceiling == pytest.approx(4.0, abs=1e-6)
    assert picked(estimates, "context_complexity").value == pytest.approx(4.0, abs=1e-6)
    independent = picked(estimates, "complexity", "none")
    # 50 rows a label, 3 or 4 of each code: the plug-in is not 0, but what the null says
    assert independent.value < 0.02


def test_labels_that_fix_the_row_reach_the_context_at_any_n():
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.standard_normal((300, 48))).float()
    for n in (50, 1000, 20_000):
        ids = rng.integers(0, 300, n)
        state = SoftInformation(48, bins=100, draws=1)
        state.update(vectors[ids], {"token": ids})
        estimates = state.estimate()
        complexity, context = picked(estimates, "complexity", "token"), picked(estimates, "context_complexity")
        assert complexity.value == pytest.approx(context.value, abs=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_any_split_and_any_merge_of_the_rows_gives_the_same_answer(dtype, tolerance):
    rows, ids, following, documents = planted()
    rows = rows.to(dtype)
    whole = fed(SoftInformation(32, draws=2), rows, ids, following, documents)
    split = fed(SoftInformation(32, draws=2), rows, ids, following, documents, pieces=7)
    first = fed(SoftInformation(32, draws=2), rows[:1111], ids[:1111], following[:1111], documents[:1111])
    first.merge(fed(SoftInformation(32, draws=2), rows[1111:], ids[1111:], following[1111:], documents[1111:], 3))
    expected = whole.estimate()
    for other in (split.estimate(), first.estimate()):
        for one, two in zip(expected, other, strict=True):
            assert (one.quantity, one.label, one.draw, one.n, one.n_labels) == (
                two.quantity, two.label, two.draw, two.n, two.n_labels,
            )  # fmt: skip
            for field in ("value", "null", "null_rows", "ceiling"):
                assert getattr(two, field) == pytest.approx(getattr(one, field), abs=tolerance), (one, field)


def test_order_of_the_rows_does_not_matter_but_for_the_sampled_row_null():
    rows, ids, following, documents = planted(1000)
    order = np.random.default_rng(1).permutation(1000)
    state = SoftInformation(32, draws=1)
    state.update(rows[order], {"token": ids[order], "next_token": following[order]})
    found = state.estimate()
    for one in fed(SoftInformation(32, draws=1), rows, ids, following, documents).estimate():
        if one.status == "ok" and not one.quantity.startswith("optimality"):
            assert picked(found, one.quantity, one.label, one.draw).value == pytest.approx(one.value, abs=1e-9)


def test_a_saved_state_is_the_same_state(tmp_path):
    rows, ids, following, documents = planted(500)
    state = SoftInformation(32, draws=2, centre=rows.mean(0))
    fed(state, rows, ids, following, documents).save(tmp_path / "state.safetensors")
    loaded = SoftInformation.load(tmp_path / "state.safetensors")
    assert loaded.identity == state.identity
    assert loaded.estimate() == state.estimate()
    loaded.merge(state)
    assert loaded.n == 1000


def test_another_file_is_not_taken_for_a_state(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no state of SoftInformation"):
        SoftInformation.load(tmp_path / "other.safetensors")


def test_scratch_files_give_the_same_numbers_within_float16(tmp_path):
    rows, ids, following, documents = planted()
    memory = fed(SoftInformation(32, draws=2), rows, ids, following, documents, 3).estimate()
    state = fed(SoftInformation(32, draws=2, scratch=tmp_path), rows, ids, following, documents, 3)
    assert state._buffer.on_disk
    assert not list(tmp_path.iterdir()), "scratch files are unlinked at once, so that a kill leaves none"
    scratch = state.estimate()
    state.close()
    pairs = zip(memory, scratch, strict=True)
    largest = max(abs(one.value - two.value) for one, two in pairs if one.value is not None and one.unit == "bits")
    # float16 keeps 11 bits; the errors of many assignments average out. Measured: 2e-5 bits
    assert 0 < largest < 1e-4


def test_information_lies_between_zero_and_its_ceiling_and_grows_with_finer_labels():
    rows, ids, following, documents = planted()
    fine = ids * 50 + following
    state = SoftInformation(32, draws=2)
    state.update(rows, {"coarse": ids // 4, "token": ids, "pair": fine}, documents)
    estimates = state.estimate()
    coarse, token, pair = (picked(estimates, "complexity", name) for name in ("coarse", "token", "pair"))
    assert 0 < coarse.value < token.value < pair.value <= picked(estimates, "context_complexity").value + 1e-9
    for one in (coarse, token, pair):
        assert one.value <= one.ceiling + 1e-9
        assert one.efficiency == pytest.approx(one.value / math.log2(100))
        assert one.draw_std is not None


def test_optimality_of_pure_noise_is_refused_while_the_raw_ratio_reads_one():
    rng = np.random.default_rng(0)
    n = 8000
    ids = rng.zipf(1.2, n) % 3000
    state = SoftInformation(64, draws=4)
    state.update(
        torch.from_numpy(rng.standard_normal((n, 64))).float(),
        {"token": ids, "next_token": np.roll(ids, -1)},
        np.repeat(np.arange(n // 100), 100),
    )
    estimates = state.estimate([_ordered(state, "token"), _ordered(state, "next_token")])
    raw, headline = picked(estimates, "optimality_raw", "token"), picked(estimates, "optimality", "token")
    assert raw.value == pytest.approx(1.0, abs=0.02)
    assert raw.null == pytest.approx(1.0, abs=0.02)
    assert headline.value is None and headline.status == "refused"
    assert "complexity is not above its null" in headline.message


def test_optimality_of_a_planted_case_is_the_ratio_of_corrected_informations():
    rows, ids, following, documents = planted(strength=2.0)
    state = fed(SoftInformation(32, draws=3), rows, ids, following, documents)
    estimates = state.estimate([_ordered(state, "token"), _ordered(state, "next_token")])
    below, above = picked(estimates, "complexity", "token"), picked(estimates, "expressivity", "token")
    headline = picked(estimates, "optimality", "token")
    assert headline.value == pytest.approx((above.value - above.null) / (below.value - below.null))
    assert headline.null == pytest.approx(above.null / below.null)
    assert picked(estimates, "optimality_raw", "token").value == pytest.approx(above.value / below.value)


def _ordered(state, name):
    [found] = [one for one in state.label_groups() if (one.direction == "output") == name.startswith("next_")]
    return found


def test_optimality_without_a_second_document_is_refused_with_the_reason():
    rows, ids, following, _ = planted(500)
    state = SoftInformation(32, draws=2)
    state.update(rows, {"token": ids, "next_token": following}, np.zeros(500, dtype=int))
    estimates = state.estimate(state.label_groups())
    headline = picked(estimates, "optimality", "token")
    assert headline.status == "refused" and "a single document" in headline.message
    assert picked(estimates, "complexity", "token").null is None


def test_uniform_weighting_reweights_the_marginal_and_the_ceiling_too():
    rows, ids, *_ = planted(600, labels=12)
    state = SoftInformation(32, draws=1)
    state.update(rows, {"token": ids})
    z = rows / rows.norm(dim=1, keepdim=True)
    a = torch.softmax(z @ state.anchors[0].T / state.temperature, dim=1)
    kept = [label for label in np.unique(ids) if (ids == label).sum() >= 5]
    means = torch.stack([a[ids == label].mean(0) for label in kept])
    conditional = float(torch.special.entr(means).sum(1).mean())
    marginal = float(torch.special.entr(means.mean(0)).sum())
    context = marginal - float(torch.stack([torch.special.entr(a[ids == k]).sum(1).mean() for k in kept]).mean())
    estimates = state.estimate(weightings=("uniform", "uniform_mixed", "frequency"))
    found = picked(estimates, "complexity", "token", weighting="uniform")
    assert found.value == pytest.approx((marginal - conditional) * BITS_PER_NAT, abs=1e-9)
    assert found.ceiling == pytest.approx(min(context * BITS_PER_NAT, math.log2(len(kept))), abs=1e-9)
    assert (found.n_labels, found.n) == (len(kept), int(np.isin(ids, kept).sum()))
    mixed = picked(estimates, "complexity", "token", weighting="uniform_mixed")
    total = float(torch.special.entr(a.mean(0)).sum())
    assert mixed.value == pytest.approx((total - conditional) * BITS_PER_NAT, abs=1e-9)
    assert "not a mutual information" in mixed.message


@pytest.mark.parametrize("weighting", ["frequency", "uniform"])
def test_no_information_exceeds_its_ceiling_under_any_weighting(weighting):
    """Sharp codes of unequal frequency: H(label) is the binding ceiling, and it is that of the weighting's own law."""
    anchors = draw_anchors(64, 24, 1, 0)
    ids = np.repeat(np.arange(20), np.arange(6, 26))
    state = SoftInformation(64, anchors=anchors, temperature=1e-3)
    state.update(anchors[0][ids], {"code": ids})
    found = picked(state.estimate(weightings=(weighting,)), "complexity", "code", weighting=weighting)
    assert found.value == pytest.approx(found.ceiling, abs=1e-6)
    assert found.value <= math.log2(20) + 1e-9


def test_nulls_of_a_partly_labelled_set_are_those_of_the_labelled_rows():
    """Random labels on a quarter of the rows, which lie in a direction of their own: nothing to be found."""
    rng = np.random.default_rng(0)
    n = 4000
    rows = torch.from_numpy(rng.standard_normal((n, 32)))
    labelled = (np.arange(n) // 5) % 4 == 0
    rows[torch.from_numpy(labelled)] += 2.0
    ids = np.where(labelled, rng.integers(0, 200, n), -1)
    state = SoftInformation(32, draws=2)
    state.update(rows, {"some": ids}, np.arange(n) // 40)
    found = picked(state.estimate(), "complexity", "some")
    assert found.n == labelled.sum()
    assert found.null == pytest.approx(found.value, rel=0.1)
    assert found.null_rows == pytest.approx(found.value, rel=0.1)


def test_one_anchor_draw_gives_no_headline_optimality():
    rows, ids, following, documents = planted(500)
    state = fed(SoftInformation(32, draws=1), rows, ids, following, documents)
    headline = picked(state.estimate(), "optimality", "token")
    assert headline.status == "refused" and "one anchor draw" in headline.message


def test_no_label_that_reaches_min_count_is_a_refusal_not_a_number():
    state = SoftInformation(16, draws=1)
    state.update(torch.randn(30, 16, generator=torch.Generator().manual_seed(0)), {"token": np.arange(30)})
    found = picked(state.estimate(weightings=("uniform",)), "complexity", "token", weighting="uniform")
    assert found.value is None and found.status == "refused" and "no label reaches min_count" in found.message


def test_rows_without_a_label_are_left_out_of_that_label_only():
    rows, ids, following, _ = planted(600)
    some = np.where(np.arange(600) < 400, ids, -1)
    state, only = SoftInformation(32, draws=1), SoftInformation(32, draws=1)
    state.update(rows, {"token": some, "next_token": following})
    only.update(rows[:400], {"token": ids[:400]})
    found, expected = picked(state.estimate(), "complexity", "token"), picked(only.estimate(), "complexity", "token")
    assert found.value == pytest.approx(expected.value, abs=1e-9)
    assert found.n == 400
    assert picked(state.estimate(), "expressivity", "token").n == 600


def test_centred_rows_do_not_see_a_constant_and_states_with_other_centres_refuse_to_merge():
    rows, ids, *_ = planted(1000)
    constant = torch.full((32,), 40.0, dtype=torch.float64)
    raw, moved = SoftInformation(32, draws=1), SoftInformation(32, draws=1)
    centred = SoftInformation(32, draws=1, centre=(rows + constant)[:500].mean(0))
    for state, z in ((raw, rows), (moved, rows + constant), (centred, rows + constant)):
        state.update(z, {"token": ids})
    values = [picked(state.estimate(), "complexity", "token").value for state in (raw, moved, centred)]
    assert values[1] < 0.05 * values[0]
    assert values[2] == pytest.approx(values[0], rel=0.1)
    assert 0 < centred.centre_shift() < 0.05
    with pytest.raises(ValueError, match="these states have different centres"):
        centred.merge(moved)
    with pytest.raises(ValueError, match="different anchors or temperatures"):
        raw.merge(SoftInformation(32, draws=1, seed=1))


def test_an_outlier_direction_looks_like_compression_until_it_is_removed(tmp_path):
    """A direction that no label knows of; states with and without it, and with another, refuse to merge."""
    from infocomp.estimators.moments import RowMoments

    rows, ids, *_ = planted(4000)
    generator = torch.Generator().manual_seed(5)
    outlier = torch.nn.functional.normalize(torch.randn(1, 32, generator=generator, dtype=torch.float64))
    moved = rows + 60 * torch.randn(4000, 1, generator=generator, dtype=torch.float64) @ outlier + 5
    pilot = RowMoments(32)
    pilot.update(moved[:1000])
    plain = SoftInformation(32, draws=2)
    centred = SoftInformation(32, draws=2, centre=pilot.mean)
    removed = SoftInformation(32, draws=2, centre=pilot.mean, directions=pilot.directions(1))
    for state, z in ((plain, rows), (centred, moved), (removed, moved)):
        state.update(z, {"token": ids})
    values = [picked(state.estimate(), "complexity", "token").value for state in (plain, centred, removed)]
    assert values[1] < 0.5 * values[0]
    assert values[2] == pytest.approx(values[0], rel=0.15)  # one of 32 dimensions is gone

    # the shift along the outlier, which the rows no longer have, is not counted
    assert removed.centre_shift() < 0.2 * centred.centre_shift()
    projected = moved.mean(0) - pilot.mean
    projected -= removed.directions @ (removed.directions.T @ projected)
    kept = pilot.mean - removed.directions @ (removed.directions.T @ pilot.mean)
    assert removed.centre_shift() == pytest.approx(float(projected.norm() / kept.norm()), rel=1e-4)

    removed.save(tmp_path / "state.safetensors")
    loaded = SoftInformation.load(tmp_path / "state.safetensors")
    assert loaded.identity == removed.identity != centred.identity
    assert torch.equal(loaded.directions, removed.directions)
    loaded.merge(removed)
    assert loaded.n == 8000
    loaded.update(moved[:100], {"token": ids[:100]})  # and it goes on with the same projection
    assert torch.allclose(loaded.assign(moved[:100])[0], removed.assign(moved[:100])[0], atol=1e-12)
    other = SoftInformation(32, draws=2, centre=pilot.mean, directions=pilot.directions(2))
    for without in (centred, other):
        with pytest.raises(ValueError, match="these states have different removed directions"):
            removed.merge(without)
    with pytest.raises(ValueError, match="these states have different centres"):
        removed.merge(plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_model_is_accumulated_in_float32(dtype):
    rows, ids, *_ = planted(4000)
    low, same = SoftInformation(32, draws=1), SoftInformation(32, draws=1)
    low.update(rows.to(dtype), {"token": ids})
    same.update(rows.to(dtype).float(), {"token": ids})
    assert low.estimate() == same.estimate()


def test_long_segments_are_added_up_in_pieces():
    """50,000 rows of one label: float32 partial sums, float64 between them."""
    plane = torch.softmax(torch.randn(50_000, 20, generator=torch.Generator().manual_seed(0)), dim=1)
    groups = Groups.of(np.zeros(50_000, dtype=np.int64))
    exact = plane.double().sum(0)
    assert torch.allclose(groups.sums(plane)[0].double(), exact, rtol=2e-7)
    assert len(groups.starts) == -(-50_000 // PIECE)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda s, z: s.update(z, {"token": [1, 2]}), ValueError, "token has 2 entries, rows has 4: one label per row"),
        (lambda s, z: s.update(z, {"token": [1.5] * 4}), TypeError, "token must be integers, got float64"),
        (lambda s, z: s.estimate(), ValueError, "update was never called with rows"),
        (lambda s, z: (s.update(z, {"a": [1] * 4}), s.update(z, {"b": [1] * 4})), ValueError, "same label sets"),
        (lambda s, z: (s.update(z), s.update(z, documents=[1] * 4)), ValueError, "documents must be given in every"),
        (lambda s, z: (s.update(z), s.estimate(weightings=("other",))), ValueError, "weighting must be one of"),
        (lambda s, z: (s.update(z), s.estimate(min_count=1)), ValueError, "min_count must be at least 2"),
        (lambda s, z: SoftInformation(9, anchors=torch.ones(1, 3, 8)), ValueError, "anchors have 8 dimensions, dim is"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(SoftInformation(8, bins=5, draws=1), torch.ones(4, 8))


def test_groups_leave_out_what_has_no_label_or_no_partner():
    groups = Groups.of(np.array([3, 3, -1, 5, 3]), np.array([1, 2, 3, -1, 0]))
    assert groups.n == 3 and groups.n_all == 5 and groups.n_labels == 1
    assert sorted(groups.rows.tolist()) == [0, 1, 2]
    with pytest.raises(TypeError, match="labels must be one integer per row"):
        Groups.of(np.zeros(3))


def test_an_output_label_is_expressivity():
    one = LabelGroups("token", 1, "output", Groups.of(np.zeros(2, int)), None)
    assert one.quantity == "expressivity"
