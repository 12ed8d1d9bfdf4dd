"""`infocomp.measure`: the table's rows from a notebook, theorems on real activations, and a model left as it was."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import LAYERS, hooks_on, tiny_model
from tiny_text import some_texts, tiny_tokenizer

import infocomp
from infocomp.corpora.labels import LabelSet
from infocomp.estimators.soft_information import SoftInformation
from infocomp.execution.table import COLUMNS, KEY, VOLATILE
from infocomp.studies.measure import measure, prepare_texts, with_labels
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.settings import DEFAULT_SITES, ComputeSettings, EstimatorSettings

POSTS = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
SMALL = {"bins": 20, "draws": 2, "context_length": 32, "orders": (1, 2)}
ABOUT = {"model": "model", "revision": "", "fingerprint": "f"}
# a sum of 20 float32 numbers below 1, and H(A) of a row that differs by it in both of its computations
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def texts():
    return some_texts()


@pytest.fixture(scope="module")
def prepared(tokenizer, texts):
    return prepare_texts(texts, tokenizer, context_length=32, orders=(1, 2, 3, 4))


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neox", "sdpa")


@pytest.fixture(scope="module")
def frame(model, tokenizer, prepared) -> pd.DataFrame:
    """All sites and orders of the tiny GPT-NeoX."""
    return measure(model, tokenizer, prepared, bins=20, draws=2)


def values(frame: pd.DataFrame, quantity: str, **where) -> pd.DataFrame:
    """Rows of one quantity, means over draws unless a draw is asked for."""
    for name, wanted in ({"quantity": quantity, "draw": "mean"} | where).items():
        frame = frame[frame[name] == wanted]
    return frame


def without_dates(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=list(VOLATILE))


def test_the_columns_are_those_of_the_table_and_every_row_has_its_key(frame):
    assert list(frame.columns) == list(COLUMNS)
    assert not frame.duplicated(list(KEY)).any()
    sites = {"hook_embed", *POSTS, "ln_final.hook_normalized"}
    assert set(frame.site) == sites | {"logits"}
    kinds = {"entropy", "context_complexity", "complexity", "expressivity", "regularity", "optimality"}
    kinds |= {"token_channel_expressivity", "context_gain", "expressivity_bound"}
    assert set(frame.quantity) == kinds | {"optimality_raw", "bits_per_token", "bits_per_byte", "sink_share"}
    assert set(values(frame, "complexity").label) == {"token", "bigram", "trigram", "quadgram"}
    assert set(frame.status) <= {"ok", "refused"} and (frame.status == "ok").mean() > 0.8
    assert frame.loc[frame.status == "refused", "message"].notna().all()
    assert sorted(frame.layer.dropna().unique()) == [0, 1, 2]
    assert set(frame.draw) == {"0", "1", "mean"}
    assert (frame.attention == "sdpa").all() and (frame.dtype == "float32").all() and (frame.bos == "none").all()
    assert infocomp.measure is measure


def test_the_rows_say_how_much_text_was_measured(frame, prepared, tokenizer, texts):
    tokens = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    windows = [min(32, count - start) for count in tokens for start in range(0, count, 32)]
    assert (values(frame, "entropy").n_tokens == sum(max(0, length - 7) for length in windows)).all()
    assert values(frame, "bits_per_byte").n_tokens.item() == sum(length - 1 for length in windows)
    assert (frame.n_documents == len(texts)).all() and (frame.context_length == 32).all()
    assert json.loads(frame.settings.iloc[0]) == {
        "bins": 20,
        "draws": 2,
        "min_count": 5,
        "orders": [1, 2, 3, 4],
        "skip_first": 1,
        "stride": None,
        "temperature": "exact",
        "tokenizer": prepared.tokenizer,
    }


def test_the_embedding_knows_the_token_and_nothing_else(frame):
    """The same token has the same row, so H(J | token) = E H(A): complexity is the whole context complexity."""
    context = values(frame, "context_complexity", site="hook_embed").value.item()
    complexity = values(frame, "complexity", site="hook_embed")
    assert context > 0.05
    assert (complexity.value - context).abs().max() <= ROUNDING  # at every order: a longer n-gram tells no more
    deeper = values(frame, "complexity", site=POSTS[0], label="token").value.item()
    assert values(frame, "context_complexity", site=POSTS[0]).value.item() - deeper > 100 * ROUNDING


def test_so_it_does_in_a_long_text_where_equal_rows_round_alike(model, tokenizer):
    long = some_texts(40, 200)
    rows = measure(model, tokenizer, long, ["hook_embed"], bins=20, draws=5, context_length=32, orders=(1,))
    context, token = (rows[rows.quantity == name].value.to_numpy() for name in ("context_complexity", "complexity"))
    assert len(context) == len(token) == 6 and rows.n_tokens.max() > 10_000
    assert np.abs(context - token).max() <= ROUNDING


def test_a_longer_n_gram_never_tells_less(frame):
    """Data processing on the plug-in: the bigram determines the token."""
    for quantity in ("complexity", "expressivity"):
        for (_, _), rows in values(frame, quantity).groupby(["site", "draw"]):
            by_order = rows.sort_values("order").value.to_numpy()
            assert len(by_order) == 4 and (np.diff(by_order) >= -ROUNDING).all()


def test_no_information_exceeds_its_ceiling(frame):
    information = frame[frame.quantity.isin(["complexity", "expressivity"])]
    assert len(information) == 5 * 2 * 4 * 3 and information.ceiling.notna().all()
    assert (information.value <= information.ceiling + ROUNDING).all()
    strictly = information[(information.site != "hook_embed") & (information.singleton_mass < 0.5)]
    assert len(strictly) and (strictly.value <= strictly.ceiling + 1e-9).all()
    assert (information.value >= -ROUNDING).all()
    entropy = frame[frame.quantity == "entropy"]
    assert (entropy.value <= math.log2(20) + 1e-9).all() and np.allclose(
        entropy.efficiency, entropy.value / np.log2(20)
    )


def test_every_information_stands_beside_both_nulls(frame):
    information = frame[frame.quantity.isin(["complexity", "expressivity"])]
    assert information.null.notna().all() and information.null_rows.notna().all()
    assert (values(frame, "complexity", site="hook_embed", label="token").eval("value > null")).all()


def test_two_identical_calls_give_identical_tables(model, tokenizer, texts):
    one, other = (measure(model, tokenizer, texts, **SMALL) for _ in range(2))
    pd.testing.assert_frame_equal(without_dates(one), without_dates(other), check_exact=True)


@pytest.mark.parametrize("batch_tokens", [64, 512])
def test_the_batch_changes_nothing_beyond_rounding(model, tokenizer, frame, prepared, batch_tokens):
    other = measure(model, tokenizer, prepared, bins=20, draws=2, batch_tokens=batch_tokens)
    numbers = ["value", "null", "null_rows", "ceiling"]
    informations = frame.unit == "bits"  # ratios divide rounding by small numbers
    difference = (frame.loc[informations, numbers] - other.loc[informations, numbers]).abs()
    assert difference.max().max() <= ROUNDING and len(difference) > 100
    pd.testing.assert_series_equal(frame.n_tokens, other.n_tokens)


def test_bits_are_the_models_own_loss_over_the_bytes_it_predicts(model, tokenizer, texts):
    text = texts[0]
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :40]
    short = tokenizer.decode(ids[0])
    other = texts[1][:20]
    rows = measure(model, tokenizer, [short, other], ["hook_embed"], **SMALL | {"context_length": 64})
    bits, scored, size = 0.0, 0, 0
    for one in (short, other):
        ids = tokenizer(one, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            bits += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1) / math.log(2)
        scored += ids.shape[1] - 1
        size += len(one.encode()) - len(tokenizer.decode(ids[0, :1]).encode())  # the first token is given, not paid
    assert abs(values(rows, "bits_per_token").value.item() * scored - bits) <= 1e-5 * bits
    assert abs(values(rows, "bits_per_byte").value.item() * size - bits) <= 1e-5 * bits
    assert values(rows, "bits_per_byte").unit.item() == "bits/byte"


def test_with_a_bos_before_every_window_every_byte_is_paid(model, tokenizer, texts):
    rows = measure(model, tokenizer, texts, ["hook_embed"], bos="window", **SMALL)
    tokens, size = values(rows, "bits_per_token"), values(rows, "bits_per_byte")
    total = sum(len(text.encode()) for text in texts)
    assert tokens.n_tokens.item() == sum(len(tokenizer(text).input_ids) for text in texts)
    assert abs(tokens.value.item() * tokens.n_tokens.item() - size.value.item() * total) <= 1e-6 * total
    assert (rows.bos == "window").all()


def test_the_unigram_code_stands_beside_the_bits_per_token(frame, prepared):
    scored = prepared.corpus.tokens[prepared.windows.scored_tokens]
    share = np.unique(scored, return_counts=True)[1] / len(scored)
    row = values(frame, "bits_per_token")
    assert abs(row.null.item() + (share * np.log2(share)).sum()) <= 1e-9
    assert row.value.item() > row.null.item()  # an untrained model


def test_labels_of_ones_own_are_measured_beside_the_n_grams(model, tokenizer, texts, prepared):
    tokens = prepared.corpus.tokens
    labels = {"same as token": tokens.astype(np.int64), "parity": [int(t) % 2 for t in tokens]}
    labels["some"] = np.where(tokens % 3 == 0, tokens, -1)
    rows = measure(model, tokenizer, prepared, ["hook_embed", POSTS[1]], labels, bins=20, draws=2)
    for site in ("hook_embed", POSTS[1]):
        token = values(rows, "complexity", site=site, label="token")
        same = values(rows, "complexity", site=site, label="same as token")
        for column in ("value", "null", "null_rows", "ceiling", "n_labels", "singleton_mass"):
            assert same[column].item() == token[column].item()
        parity = values(rows, "complexity", site=site, label="parity")
        assert parity.n_labels.item() == 2 and 0 < parity.value.item() < token.value.item()
        assert parity.ceiling.item() <= 1 and pd.isna(parity.order.item())
        some = values(rows, "complexity", site=site, label="some")
        kept = prepared.corpus.tokens[prepared.windows.row_tokens] % 3 == 0
        assert some.n_tokens.item() == kept.sum() < token.n_tokens.item()
    assert not rows.duplicated(list(KEY)).any()
    without = measure(model, tokenizer, prepared, ["hook_embed", POSTS[1]], bins=20, draws=2)
    assert len(without) < len(rows) and not any(label.name == "parity" for label in prepared.labels)

    output = [LabelSet("next parity", None, "output", np.r_[tokens[1:] % 2, -1])]
    rows = measure(model, tokenizer, prepared, ["hook_embed"], output, bins=20, draws=2)
    assert len(values(rows, "expressivity", label="next parity")) == 1


@pytest.mark.parametrize(
    ("labels", "error", "sentence"),
    [
        ({"tag": [0, 1, 2]}, ValueError, r"labels 'tag' has 3 entries, the texts have \d+ tokens: one integer per tok"),
        ({"tag": 0.5}, TypeError, r"labels 'tag' must be integers, got float64\.$"),
        ({"tag": "noun"}, TypeError, r"labels 'tag' must be integers, got <U4\.$"),
        ({"tag": -2}, ValueError, r"labels 'tag' must be at least -1 \(no label\), got -2\.$"),
        ({"token": 1}, ValueError, r"labels 'token' are there already as input labels; take another name\.$"),
    ],
)
def test_labels_that_do_not_fit_are_refused(prepared, labels, error, sentence):
    labels = {
        name: value if isinstance(value, list) else [value] * len(prepared.corpus.tokens)
        for name, value in labels.items()
    }
    with pytest.raises(error, match="^" + sentence):
        with_labels(prepared, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_dtype_is_measured_in_it(tokenizer, texts, dtype, frame):
    model = tiny_model("gpt_neox", "sdpa", dtype)
    rows = measure(model, tokenizer, texts, **SMALL)
    assert (rows.dtype == str(dtype).removeprefix("torch.")).all()
    context = values(rows, "context_complexity", site="hook_embed").value.item()
    assert abs(values(rows, "complexity", site="hook_embed", label="token").value.item() - context) <= ROUNDING
    # 8 bits of mantissa: the logits of this untrained model are off by a hundredth at most
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    measured = values(rows, "bits_per_token").value.item()
    single = measure(tiny_model("gpt_neox", "sdpa"), tokenizer, texts, ["hook_embed"], **SMALL)
    assert abs(measured - values(single, "bits_per_token").value.item()) <= tolerance


def test_the_attention_is_the_one_the_sites_were_read_with(tokenizer, texts):
    sdpa, eager = tiny_model("gpt_neox", "sdpa"), tiny_model("gpt_neox", "eager")
    plain = measure(eager, tokenizer, texts, ["hook_embed"], **SMALL)
    assert (plain.attention == "eager").all()
    inside = measure(sdpa, tokenizer, texts, ["hook_embed", "blocks.0.attn.hook_z"], **SMALL)
    assert (inside.attention == "eager").all() and hooks_on(sdpa) == 0  # a site inside a block is read with it
    one, other = (values(rows, "bits_per_token").value.item() for rows in (plain, inside))
    assert abs(one - other) <= 1e-6 * one


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "qwen3", "gpt2"])
def test_every_architecture_is_measured(architecture, tokenizer, texts):
    rows = measure(tiny_model(architecture, "sdpa"), tokenizer, texts, **SMALL)
    assert set(rows.site) == {"hook_embed", *POSTS, "ln_final.hook_normalized", "logits"}
    context = values(rows, "context_complexity", site="hook_embed").value.item()
    assert abs(values(rows, "complexity", site="hook_embed", label="token").value.item() - context) <= ROUNDING


def test_the_model_is_left_as_it_was(tokenizer, texts):
    model = tiny_model("gpt_neox", "sdpa")
    model.train()
    model.gpt_neox.layers[1].eval()  # a part that its owner keeps in eval mode
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    measure(model, tokenizer, texts, **SMALL)
    assert [module.training for module in model.modules()] == modes and hooks_on(model) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(KeyError, match=r"no site named 'blocks.9.hook_resid_post'; closest are 'blocks"):
        measure(model, tokenizer, texts, ["blocks.9.hook_resid_post"], **SMALL)
    assert [module.training for module in model.modules()] == modes and hooks_on(model) == 0
    model(torch.arange(8).unsqueeze(0), labels=torch.arange(8).unsqueeze(0)).loss.backward()  # it can still be trained


class Broken(torch.nn.Module):
    """A block that makes NaN of one position."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, states: torch.Tensor, *args, **kwargs):
        states = self.block(states, *args, **kwargs).clone()
        states[:, 9:10] = math.nan
        return states


@pytest.mark.parametrize("rows", [("raw",), ("centred",)])
def test_nan_in_activations_is_one_sentence_that_names_the_site(tokenizer, prepared, tmp_path, rows):
    model = tiny_model("gpt_neox", "sdpa")
    model.gpt_neox.layers[1] = Broken(model.gpt_neox.layers[1])
    estimator = EstimatorSettings(bins=20, draws=1, rows=rows)
    with pytest.raises(ValueError, match=r"^at site blocks\.1\.hook_resid_post: row \d+ of \d+ .*NaN") as error:
        measure_corpus(model, prepared, DEFAULT_SITES, estimator, ComputeSettings(), ABOUT, tmp_path)
    assert "\n" not in str(error.value) and hooks_on(model) == 0


def test_nan_in_weights_is_one_sentence_that_names_the_tensor(tokenizer, texts):
    model = tiny_model("gpt_neox", "sdpa")
    with torch.no_grad():
        model.gpt_neox.layers[2].mlp.dense_4h_to_h.bias[3] = math.inf
    with pytest.raises(ValueError, match=r"^pythia has 1 of 32 values of gpt_neox\.layers\.2\.mlp\.dense_4h_to_h\.bia"):
        measure(model, tokenizer, texts, name="pythia", **SMALL)


def test_logits_that_overflow_are_one_sentence(tokenizer, texts):
    model = tiny_model("gpt_neox", "sdpa")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(3e38)  # finite, and a sum of 32 of them is not
    with pytest.raises(ValueError, match=r"^the code length of \d+ of \d+ tokens is NaN or infinite: the logits overf"):
        measure(model, tokenizer, texts, ["hook_embed"], **SMALL)


def test_a_text_that_is_no_list_or_too_short_is_refused(model, tokenizer):
    with pytest.raises(TypeError, match=r"^texts must be a list of strings, one a document, not one string\.$"):
        measure(model, tokenizer, "one string")
    with pytest.raises(ValueError, match=r"^corpus 'texts' is too short: its longest document or window has \d+ token"):
        measure(model, tokenizer, ["ab", "cd"], orders=(1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"^texts: at least one document with text is needed, and 2 were found, all"):
        measure(model, tokenizer, ["", " "])


def test_one_document_has_no_null_and_says_so(model, tokenizer, texts):
    rows = measure(model, tokenizer, texts[:1], ["hook_embed"], **SMALL)
    assert values(rows, "complexity").null.isna().all() and values(rows, "complexity").null_rows.notna().all()
    refused = values(rows, "optimality")
    assert (refused.status == "refused").all() and refused.message.str.startswith("no null: ").all()


def test_the_rows_are_those_of_the_estimator_fed_by_hand(model, tokenizer, texts):
    """The whole path against its parts: windows and labels cut here, activations from the model's own output."""
    state = SoftInformation(32, bins=20, draws=2)
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :64]
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[1][0]
        labels = {"token": ids[0, 1:-1], "next_token": ids[0, 2:]}  # the first position is a sink, and left out
        state.update(states[1:-1], labels, torch.full((ids.shape[1] - 2,), number))
    expected = {(e.quantity, e.draw): e.value for e in state.estimate() if e.status == "ok"}
    short = [tokenizer.decode(tokenizer(text).input_ids[:64]) for text in texts]
    rows = measure(model, tokenizer, short, [POSTS[0]], bins=20, draws=2, context_length=512, orders=(1,))
    found = {(row.quantity, row.draw): row.value for row in rows.itertuples() if row.site == POSTS[0]}
    compared = [key for key in expected if key[0] in ("entropy", "context_complexity", "complexity", "expressivity")]
    assert len(compared) == 12
    assert all(abs(expected[key] - found[key]) <= ROUNDING for key in compared)
