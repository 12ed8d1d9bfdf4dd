"""The published package, soft-entropy (Conklin et al.), as an oracle: same anchors, same temperature, same values."""

import numpy as np
import pytest
import torch
from soft_entropy import accumulator

from infocomp.estimators import SoftInformation


@pytest.mark.parametrize("dim", [16, 64, 512])
def test_entropy_information_and_regularity_equal_those_of_the_published_package(dim):
    rng = np.random.default_rng(dim)
    n, bins = 2000, 100
    ids = rng.zipf(1.3, n) % 200
    rows = torch.from_numpy(rng.standard_normal((n, dim)) + rng.standard_normal((200, dim))[ids]).float()
    theirs = accumulator.SoftEntropyAccumulator(d=dim, n_bins=bins, seed=0, backend="torch")
    for part in np.array_split(np.arange(n), 5):
        theirs.update(rows[part], {"token": torch.from_numpy(ids[part])})
    ours = SoftInformation(dim, anchors=theirs.w.double().unsqueeze(0), temperature=float(theirs.temp))
    ours.update(rows, {"token": ids})
    found = {(e.quantity, e.label): e for e in ours.estimate() if e.draw == "mean"}
    assert found["entropy", ""].efficiency == pytest.approx(float(theirs.entropy()), abs=1e-6)
    information = float(theirs.mutual_information()["token"])
    assert found["complexity", "token"].efficiency == pytest.approx(information, abs=1e-6)
    assert found["regularity", "token"].value == pytest.approx(information / float(theirs.entropy()), abs=1e-6)
