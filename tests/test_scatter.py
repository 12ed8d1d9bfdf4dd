"""The streaming scatter: by hand, against the whole matrix, any cut and merge, files that leave nothing behind."""

import errno

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.geometry.scatter import BLOCK, Scatter, bytes_needed, scratch_needed


def drawn(n: int, dim: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, dim)) * np.arange(1, dim + 1) + offset


def filled(rows: np.ndarray, **settings) -> Scatter:
    site = Scatter(rows.shape[1], **settings)
    site.update(rows)
    return site


def test_three_rows_by_hand():
    site = filled(np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 3.0]]))
    assert site.count == 3 and site.mean == pytest.approx([4 / 3, 1.0])
    assert site.centred() == pytest.approx(np.array([[14 / 3, -4.0], [-4.0, 6.0]]))
    assert site.uncentred() == pytest.approx(np.array([[10.0, 0.0], [0.0, 9.0]]))
    assert site.trace == pytest.approx(14 / 3 + 6)
    assert site.mean_cosine == pytest.approx(1 / 3), "one pair of three points the same way, two are at right angles"


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_it_is_the_whole_matrix_to_1e_12_also_far_from_the_origin(offset):
    rows = drawn(2 * BLOCK + 100, 40, offset=offset)
    site, centred = filled(rows), rows - rows.mean(axis=0)
    expected = centred.T @ centred
    assert np.abs(site.centred() - expected).max() <= 1e-12 * np.abs(expected).max()
    assert np.abs(site.uncentred() - rows.T @ rows).max() <= 1e-12 * np.abs(rows.T @ rows).max()
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    cosines = unit @ unit.T
    assert site.mean_cosine == pytest.approx(cosines[np.triu_indices(len(rows), 1)].mean(), rel=1e-10)


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 2 * BLOCK + 300), max_size=5))
def test_any_cut_into_batches_gives_the_same_bit_by_bit(cuts):
    rows = drawn(2 * BLOCK + 300, 7, offset=50.0)
    site = Scatter(7)
    for piece in np.split(rows, sorted(cuts)):
        site.update(piece)
    whole = filled(rows)
    assert (site.centred() == whole.centred()).all() and (site.mean == whole.mean).all()
    assert site.mean_cosine == whole.mean_cosine


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, BLOCK + 300), min_size=2, max_size=2), turned=st.booleans())
def test_merged_parts_in_any_order_are_the_whole(cuts, turned):
    rows = drawn(BLOCK + 300, 7, offset=50.0)
    parts = [filled(piece) for piece in np.split(rows, sorted(cuts))]
    first, *others = parts[::-1] if turned else parts
    for part in others:
        before = part.count
        first.merge(part)
        assert part.count == before
    whole = filled(rows)
    assert first.count == whole.count
    assert np.abs(first.centred() - whole.centred()).max() <= 1e-12 * np.abs(whole.centred()).max()
    assert first.mean == pytest.approx(whole.mean, rel=1e-12)
    assert first.mean_cosine == pytest.approx(whole.mean_cosine, rel=1e-12)


def test_reading_in_between_changes_nothing_beyond_rounding():
    rows, site = drawn(500, 5, offset=3.0), Scatter(5)
    for piece in np.split(rows, 5):
        site.update(piece)
        assert site.trace >= 0
    assert np.abs(site.centred() - filled(rows).centred()).max() <= 1e-12 * site.trace


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_of_any_dtype_are_summed_in_float64_and_left_as_they_are(dtype):
    rows = torch.from_numpy(drawn(300, 6, offset=20.0)).to(dtype)
    kept = rows.clone()
    site = Scatter(6)
    site.update(rows)
    assert torch.equal(rows, kept)
    expected = rows.double().numpy() - rows.double().numpy().mean(axis=0)
    assert np.abs(site.centred() - expected.T @ expected).max() <= 1e-12 * site.trace


def test_a_scratch_file_gives_the_same_numbers_and_leaves_nothing_behind(tmp_path):
    rows = drawn(BLOCK + 50, 30)
    site, memory = filled(rows, scratch=tmp_path / "scratch"), filled(rows)
    assert site.on_disk and not memory.on_disk
    assert list((tmp_path / "scratch").iterdir()) == [], "the file is unlinked while it is in use"
    assert (site.centred() == memory.centred()).all()
    memory.merge(site)
    assert memory.count == 2 * len(rows)
    site.close()
    with pytest.raises(ValueError, match=r"this scatter of width 30 is closed; read what is needed before close"):
        site.update(rows)
    with pytest.raises(ValueError, match="is closed"):
        site.centred()


def test_a_file_that_cannot_grow_is_told_at_once(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            Scatter(400, scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG, "as a full disk would be: before the first row, not at the last"
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_not_finite_are_refused_and_none_of_the_call_is_kept():
    rows = drawn(20, 4)
    site = filled(rows)
    broken = drawn(5, 4)
    broken[2, 1], broken[4, 0] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"2 of 5 rows are not finite; find where the model overflows"):
        site.update(broken)
    assert site.count == 20 and (site.centred() == filled(rows).centred()).all()


def test_rows_of_length_zero_have_no_cosine_but_are_rows():
    site = filled(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [5.0, 0.0]]))
    assert site.count == 4 and site.mean_cosine == pytest.approx(1.0)
    assert filled(np.zeros((3, 2))).mean_cosine is None
    assert Scatter(2).mean_cosine is None


def test_bad_widths_are_told():
    with pytest.raises(ValueError, match=r"dim must lie between 1 and 8192, got 9000; project wider rows first"):
        Scatter(9000)
    with pytest.raises(ValueError, match=r"rows must be \[rows, 3\], got \(5, 4\)"):
        Scatter(3).update(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"scatters of widths 3 and 4 cannot be merged: take rows of one site"):
        Scatter(3).merge(Scatter(4))


def test_what_a_study_must_hold_is_known_before():
    """7 sites of d = 4,096 are 7 × 128 MiB, their blocks and one copy: a GiB is too little, 2 GiB are enough."""
    assert scratch_needed([4096] * 7, 2**30) and not scratch_needed([4096] * 7, 2**31)
    assert not scratch_needed([], 0)
    assert bytes_needed(4096) - bytes_needed(4096, on_disk=True) == 8 * 4096**2
    assert bytes_needed(4096) < 2**30 < bytes_needed(8192), "the widest one needs its scratch file for 1 GiB"
    assert bytes_needed(8192, on_disk=True) < 2**30
