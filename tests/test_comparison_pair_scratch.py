"""Moments of two models side by side in scratch files: the same rows to the bit, and nothing left behind."""

from pathlib import Path

import numpy as np
import pytest
from comparison_run import comparison_config, write_model, write_text

from infocomp.config import load_config
from infocomp.geometry.pair_moments import PairMoments
from infocomp.studies.comparison import ComparisonConfig
from infocomp.studies.comparison_pair_probe import pair_scratch_needed
from infocomp.studies.comparison_pairs import measure_pair
from infocomp.studies.comparison_plan import pair_bytes


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """`measure_pair` of two tiny models on a text, with a memory budget, a scratch folder and an `advance`."""
    folder = tmp_path_factory.mktemp("pair")
    base, tuned = write_model(folder / "base"), write_model(folder / "moved", moved=0.05)
    data = {"raw": write_text(folder / "text.jsonl", documents=4)}
    similarity = {"sample": 4096, "items": 16, "words": 0}  # every row

    def measure(budget: int, scratch: Path | None, advance=lambda positions: None):
        settings = {"sites": ["hook_embed", "blocks.1.hook_resid_post"], "similarity": similarity}
        settings |= {"compute": {"threads": 1, "device": "cpu", "memory_budget": budget}}
        config = load_config(comparison_config(base, {"moved": tuned}, data, **settings))
        assert isinstance(config, ComparisonConfig)
        study, raw = config.open(folder / "out"), config.data[0]
        models = [model.open(model.source.list()[0]).model for model in study.models]
        texts = [study.prepared(model, raw) for model in study.models]
        about, tokenizer = {"role": "tuned", "base": "base", "place": 1}, study.base.source.tokenizer()
        return measure_pair(
            models[0], models[1], texts[0], texts[1], config, {"model": "moved"}, about, tokenizer, advance, scratch
        )

    return measure


def mapped(folder: Path) -> list[str]:
    """Files of a folder that this process maps, deleted ones too."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's mapped files")
    return [line for line in maps.read_text().splitlines() if str(folder) in line]


def test_moments_in_scratch_files_give_the_same_rows_to_the_bit(beside, tmp_path):
    seen = []
    on_disk = beside(2**20, tmp_path / "scratch", lambda positions: seen.append(len(mapped(tmp_path))))
    assert max(seen) == 6, "two scatters and a cross moment of each of two sites"
    assert not mapped(tmp_path) and not list((tmp_path / "scratch").iterdir())
    in_memory = beside(2**32, tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    assert len(on_disk.rows) == len(in_memory.rows) > 10
    for one, other in zip(on_disk.rows, in_memory.rows, strict=True):
        assert one == other
    of_rows = {
        (row["rows"], row["quantity"], row["site"], row["label"]): row["value"]
        for row in on_disk.rows
        if row["quantity"] in ("cka", "procrustes", "cca_mean", "svcca_mean")
    }
    streamed = {key[1:]: value for key, value in of_rows.items() if key[0] == "all"}
    assert len(streamed) == 8 and all(0 < value < 1 for value in streamed.values())
    for key, value in streamed.items():
        assert value == pytest.approx(of_rows["sample", *key], rel=1e-8), "the sample is every row, and so the twin"


def test_a_pass_that_fails_gives_its_scratch_back(beside, tmp_path):
    def fail(positions: int) -> None:
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError, match="in the middle") as kept:
        beside(2**20, tmp_path, fail)
    assert kept.tb is not None, "whose frames still hold the probe"
    assert not mapped(tmp_path) and not list(tmp_path.iterdir())


def test_a_cross_moment_in_a_file_is_the_one_in_memory(tmp_path):
    generator = np.random.default_rng(0)
    in_memory, on_disk = PairMoments(7, 5), PairMoments(7, 5, scratch=tmp_path)
    for rows in (3, 40):
        x, y = generator.normal(size=(rows, 7)), generator.normal(size=(rows, 5))
        in_memory.update(x, y)
        on_disk.update(x, y)
    assert len(mapped(tmp_path)) == 1 and (on_disk.centred() == in_memory.centred()).all()
    merged = PairMoments(7, 5, scratch=tmp_path)
    merged.merge(on_disk)
    assert (merged.centred() == in_memory.centred()).all()
    on_disk.close()
    merged.close()
    assert not mapped(tmp_path)
    with pytest.raises(ValueError, match="these moments keep no matrix"):
        on_disk.centred()


def test_a_plan_counts_what_the_pair_holds():
    """33 sites of width 4,096: three matrices of 128 MiB each would be 12.4 GiB, and go to files."""
    model = (33, 4096, 14 * 2**30)
    memory, scratch = pair_bytes(model, model, 2048, 4 * 2**30)
    assert scratch == 33 * 3 * 2**27
    assert 28 * 2**30 < memory < 43 * 2**30
    roomy, none = pair_bytes(model, model, 2048, 64 * 2**30)
    assert none == 0 and roomy == memory + scratch
    assert pair_bytes(model, model, 2048, 4 * 2**30, streamed=False)[1] == 0
    sites = {str(site): 4096 for site in range(33)}
    matched = {site: site for site in sites}
    assert pair_scratch_needed(matched, sites, sites, 2 * 2**30)
    assert not pair_scratch_needed(matched, sites, sites, 32 * 2**30)
