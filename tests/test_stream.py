"""One pass for every probe: the same rows whatever the batch, none twice when memory runs out, no hook left behind."""

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import DIM, VOCABULARY, hooks_on, tiny_model
from tiny_text import token_corpus

from infocomp.activations.stream import Batch, stream
from infocomp.corpora.windows import Windows, cut_windows
from infocomp.studies.information_probe import CentreProbe

SITES = ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "ln_final.hook_out")
LENGTHS = [40, 3, 17, 64, 1, 9, 32, 31]


class Rows:
    """Keeps everything: rows of the sites, predictions, targets, and where the stream says that they stand."""

    needs_hidden = needs_logits = False

    def __init__(self, sites=SITES, needs_hidden: bool = True, needs_logits: bool = False) -> None:
        self.sites, self.needs_hidden, self.needs_logits = tuple(sites), needs_hidden, needs_logits
        self.kept: list[tuple] = []
        self.batches: list[tuple[int, int]] = []

    def compute(self, batch: Batch) -> tuple:
        self.batches.append(tuple(batch.ids.shape))
        states = batch.logits if self.needs_logits else batch.hidden
        states = None if states is None else states.flatten(0, 1)[batch.predicting]
        return {site: batch.rows_of(site) for site in self.sites}, states, batch.targets, batch.rows, batch.scored

    def keep(self, computed: tuple) -> None:
        self.kept.append(computed)

    def site(self, name: str) -> torch.Tensor:
        return torch.cat([rows[name] for rows, *_ in self.kept])

    @property
    def states(self) -> torch.Tensor:
        return torch.cat([states for _, states, *_ in self.kept])

    @property
    def targets(self) -> torch.Tensor:
        return torch.cat([targets for _, _, targets, *_ in self.kept])

    def slices(self, which: int) -> list[tuple[int, int]]:
        return [(kept[which].start, kept[which].stop) for kept in self.kept]


class OutOfMemory(Rows):
    """Runs out of memory as torch does on the CPU, in its turns `when`."""

    def __init__(self, when, error=RuntimeError, message="[enforce fail] DefaultCPUAllocator: can't allocate memory"):
        super().__init__()
        self.when, self.turn, self.error, self.message = set(when), 0, error, message
        self.failed: list[int] = []

    def compute(self, batch: Batch) -> tuple:
        self.turn += 1
        if self.turn - 1 in self.when:
            self.failed.append(batch.ids.numel())
            raise self.error(self.message)
        return super().compute(batch)


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neox")


@pytest.fixture(scope="module", params=["none", "document", "window"])
def windows(request) -> Windows:
    bos = None if request.param == "none" else 1
    return cut_windows(token_corpus(LENGTHS), 16, 2, stride=11, bos_policy=request.param, bos=bos)


@torch.no_grad()
def naive(model, windows: Windows) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """One window at a time, with what the model itself hands out."""
    rows, states, targets = {site: [] for site in SITES}, [], []
    for w in range(len(windows)):
        start, bos = int(windows.starts[w]), bool(windows.has_bos[w])
        text = windows.corpus.tokens[start : start + windows.lengths[w]].tolist()
        ids = torch.tensor([([windows.bos] if bos else []) + text])
        output = model.base_model(ids, output_hidden_states=True)
        _, first, second = output.hidden_states[:3]
        given = dict(zip(SITES, (model.get_input_embeddings()(ids), first, second, output[0]), strict=True))
        for position in range(windows.measure_from[w], windows.measure_to[w]):
            for site in SITES:
                rows[site].append(given[site][0, position - start + bos])
        for token in range(windows.score_from[w], start + windows.lengths[w]):
            states.append(output.last_hidden_state[0, token - start + bos - 1])
            targets.append(int(windows.corpus.tokens[token]))
    return {site: torch.stack(some) for site, some in rows.items()}, torch.stack(states), torch.tensor(targets)


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Within the rounding of a few float32 operations on the largest number."""
    assert (one - other).abs().max() <= 1e-6 * max(1.0, float(other.abs().max()))


def assert_equal(probe: Rows, expected: tuple) -> None:
    rows, states, targets = expected
    for site in SITES:
        assert probe.site(site).shape == rows[site].shape
        assert_close(probe.site(site), rows[site])
    assert_close(probe.states, states)
    assert torch.equal(probe.targets, targets)


@pytest.mark.parametrize("batch_tokens", [1, 64, 256, 4096])
def test_rows_and_predictions_are_those_of_a_loop_over_windows_whatever_the_batch(model, windows, batch_tokens):
    probe = Rows()
    assert stream(model, windows, [probe], batch_tokens) == batch_tokens
    assert_equal(probe, naive(model, windows))
    assert torch.equal(probe.targets, torch.from_numpy(windows.corpus.tokens[windows.scored_tokens]).long())
    assert len(probe.site("hook_embed")) == len(windows.row_tokens)
    most = max(a * b for a, b in probe.batches)
    assert most <= max(batch_tokens, 16) and (len(probe.batches) > 1) == (batch_tokens < windows.total_positions)


def test_the_batch_says_where_its_rows_stand(model, windows):
    probe = Rows()
    stream(model, windows, [probe], 64)
    for which, total in ((3, len(windows.row_tokens)), (4, len(windows.scored_tokens))):
        slices = probe.slices(which)
        assert slices[0][0] == 0 and slices[-1][1] == total
        assert all(one[1] == other[0] for one, other in pairwise(slices))
    assert [end - begin for begin, end in probe.slices(3)] == [len(kept[0][SITES[0]]) for kept in probe.kept]


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "qwen3", "gpt2"])
def test_padding_changes_nothing_in_any_architecture(architecture):
    model = tiny_model(architecture, "sdpa")
    windows = cut_windows(token_corpus([5, 14, 9, 3, 16]), 16, 1, bos_policy="window", bos=1)
    probe = Rows()
    stream(model, windows, [probe], 4096)
    assert len(probe.batches) == 1  # all lengths in one batch
    assert_equal(probe, naive(model, windows))


def test_progress_counts_every_position_once(model, windows):
    done = []
    stream(model, windows, [Rows()], 64, progress=done.append)
    assert len(done) > 1 and sum(done) == windows.total_positions


def test_several_probes_share_one_pass(model, windows):
    embed, hidden, nothing = Rows(["hook_embed"]), Rows(SITES), Rows([])
    stream(model, windows, [embed, hidden, nothing], 256)
    assert torch.equal(embed.site("hook_embed"), hidden.site("hook_embed"))
    assert embed.batches == hidden.batches == nothing.batches


def test_a_probe_that_needs_logits_gets_those_of_the_model(model, windows):
    probe, hidden = Rows(SITES[:1], needs_hidden=False, needs_logits=True), Rows()
    stream(model, windows, [probe], 64)
    stream(model, windows, [hidden], 64)
    with torch.no_grad():
        assert_close(probe.states, model.get_output_embeddings()(hidden.states))
    assert probe.states.shape[1] == VOCABULARY and torch.equal(probe.site("hook_embed"), hidden.site("hook_embed"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        (RuntimeError, "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        (MemoryError, ""),
        (torch.OutOfMemoryError, "of whatever kind"),
    ],
)
def test_memory_that_runs_out_halves_the_batch_and_counts_nothing_twice(model, windows, caplog, error, message):
    before, probe, after = Rows(), OutOfMemory([1], error, message), Rows()
    with caplog.at_level(logging.WARNING):
        fitted = stream(model, windows, [before, probe, after], 128)
    assert fitted == probe.failed[0] // 2 <= 64
    assert f"out of memory on cpu: going on with {fitted} tokens a batch" in caplog.text
    expected = naive(model, windows)
    for one in (before, probe, after):
        assert_equal(one, expected)
    assert probe.batches[0] == (8, 16) and max(a * b for a, b in probe.batches[1:]) <= 64


def test_memory_that_runs_out_again_and_again_leads_to_one_window_at_a_time(model, windows):
    probe = OutOfMemory(range(3))
    assert stream(model, windows, [probe], 128) < 32
    assert_equal(probe, naive(model, windows))
    assert probe.failed == [128, 64, 32] and probe.batches[0] == (1, 16)


def test_one_window_that_does_not_fit_is_a_sentence(model, windows):
    probe = OutOfMemory(range(99))
    sentence = (
        r"^one window of 16 tokens does not fit into the memory of cpu; take a shorter context_length, a smaller "
        r"dtype, or another device\.$"
    )
    with pytest.raises(MemoryError, match=sentence):
        stream(model, windows, [probe], 4096)
    assert not probe.kept and hooks_on(model) == 0


def test_another_error_is_raised_as_it_is_and_leaves_no_hook(model, windows):
    probe = OutOfMemory([1], RuntimeError, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        stream(model, windows, [probe], 64)
    assert len(probe.kept) == 1 and hooks_on(model) == 0


def test_no_hook_is_left_after_a_pass_either(model, windows):
    assert hooks_on(model) == 0
    stream(model, windows, [Rows()], 64)
    assert hooks_on(model) == 0


def test_the_first_tokens_are_the_first_of_the_text(model):
    windows = cut_windows(token_corpus(LENGTHS), 16, 2)
    probe = Rows()
    done = []
    stream(model, windows, [probe], 64, done.append, first_tokens=50)
    chosen = [w for w in range(len(windows)) if windows.starts[w] < 50]
    assert sum(done) == sum(windows.lengths[chosen]) >= 50 > sum(done) - 16
    rows, _, _ = naive(model, windows)
    assert_close(probe.site(SITES[2]), rows[SITES[2]][np.isin(windows.row_windows, chosen)])
    everything = Rows()
    stream(model, windows, [everything], 64, first_tokens=10**9)
    assert len(everything.site("hook_embed")) == len(windows.row_tokens)


def test_the_first_tokens_reach_as_far_as_the_first_measured_row(model):
    windows = cut_windows(token_corpus([3, 2, 3, 30, 30]), 16, 2)  # three documents too short to be measured
    pilot = CentreProbe(["hook_embed"])
    stream(model, windows, [pilot], 64, first_tokens=2)
    (centre,) = pilot.centres().values()
    assert centre.shape == (DIM,) and bool(torch.isfinite(centre).all())


def test_the_pilot_gives_the_mean_row_of_each_site(model, windows):
    pilot = CentreProbe(SITES)
    stream(model, windows, [pilot], 64)
    rows, _, _ = naive(model, windows)
    for site, centre in pilot.centres().items():
        assert centre.dtype == torch.float64
        assert_close(centre, rows[site].double().mean(dim=0))


def test_a_token_that_the_model_does_not_know_is_refused(model):
    windows = cut_windows(token_corpus([30], vocabulary=5000), 16, 2)
    largest = windows.corpus.tokens.max()
    with pytest.raises(ValueError, match=rf"^the text holds token {largest}, and the model embeds 97 tokens; tokenise"):
        stream(model, windows, [Rows()])
    windows = cut_windows(token_corpus([30]), 16, 2, bos_policy="window", bos=97)
    with pytest.raises(ValueError, match=r"^the text holds token 97, and the model embeds 97 tokens; "):
        stream(model, windows, [Rows()])


def test_a_window_longer_than_the_model_reads_is_refused(model):
    corpus = token_corpus([200])
    with pytest.raises(ValueError, match=r"^a window has 65 positions, and the model 64; take a shorter context_leng"):
        stream(model, cut_windows(corpus, 65, 2, bos_policy="window", bos=0), [Rows()])
    stream(model, cut_windows(token_corpus([60]), 512, 2), [Rows()])  # what counts is what is read
