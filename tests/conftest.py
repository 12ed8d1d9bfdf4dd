"""Every test runs without a network, without W&B's own settings, and on one thread (step counts depend on it)."""

import os
from pathlib import Path

for name in [key for key in os.environ if key.startswith("WANDB_")]:
    del os.environ[name]
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    DISABLE_SAFETENSORS_CONVERSION="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
)

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text, where it lies beside the checkout; tests that use it skip without it."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data"
        if (folder / "SOURCES.md").exists():
            return folder
    pytest.skip("the folder of real data is not beside this checkout")
