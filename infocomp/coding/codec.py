"""A language model as a lossless compressor of any bytes: what is written is what is read back, or nothing is.

    coded = compress(data, coder)          coder = Coder.of(model, tokenizer, …)
    data == decompress(coded.file, coder)

Bytes become tokens and escapes (`pieces`), the model reads the tokens in chunks side by side (`lockstep`), each token
is coded with the weights that its logits give (`integer_weights`), all into one stream in the order of the steps, and a
container names everything that decides those logits. Sizes are bytes of the file, header and checksums included.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.coding.container import Container, digest
from infocomp.coding.integer_weights import TOTAL, RangeReader, RangeWriter, integer_weights
from infocomp.coding.lockstep import Chunking, Group, Lockstep
from infocomp.coding.machine import differences, environment, reproducible
from infocomp.coding.pieces import ExactTokenizer, Pieces, join_pieces, pack_escapes, split_bytes, unpack_escapes
from infocomp.corpora.tokens import tokenizer_hash
from infocomp.units import bits

FEWEST_LANES = 32  # chunks side by side, for which a long context is given up where the text is short
SHORTEST_CHUNK = 256  # tokens, below which it is not
MOST_LANES = 128
NO_LIMIT = 2048  # positions of a window where the model says nothing of its own
CACHE_BUDGET = 2**30  # bytes of keys and values of all lanes together
NOT_ARITHMETIC = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache"}
PROBE_STEPS = 3
FLOOR_NATS = float(np.log(TOTAL))  # the most that a token costs in a file
DTYPES = ("float32", "bfloat16", "float16", "float64")
HEADER = (
    *(
        "model",
        "revision",
        "commit",
        "weights",
        "configuration",
        "tokenizer",
        "bos",
        "vocabulary",
        "dtype",
        "attention",
    ),
    *("threads", "chunking", "environment", "probe", "tokens", "bytes", "content"),
)
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Coder:
    """A model, its tokenizer, and the names under which a file will ask for them again."""

    model: PreTrainedModel
    tokenizer: ExactTokenizer
    tokenizer_hash: str
    fingerprint: str
    bos: int | None
    name: str
    revision: str | None = None
    commit: str | None = None

    @staticmethod
    def of(
        model: PreTrainedModel,
        tokenizer: Any,
        fingerprint: str,
        name: str,
        revision: str | None = None,
        commit: str | None = None,
    ) -> "Coder":
        """From a loaded model in eval mode and its Hugging Face tokenizer, which must be a fast one (ValueError)."""
        bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        exact = ExactTokenizer(tokenizer)
        return Coder(model.eval(), exact, tokenizer_hash(tokenizer), fingerprint, bos, name, revision, commit)

    @property
    def vocabulary(self) -> int:
        """How many symbols are coded: the tokenizer's ids; what a model has beyond them is padding."""
        head: Any = self.model.get_output_embeddings()
        rows = head.weight.shape[0]
        largest = max(self.tokenizer.plain.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest >= rows:
            raise ValueError(
                f"the tokenizer knows token {largest}, and the model predicts {rows} tokens; give it its own tokenizer."
            )
        return largest + 1

    @property
    def dtype(self) -> str:
        """The dtype of the weights, such as float32."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Coded:
    """A compressed file and where its bytes went.

    `ideal_bits` is −Σ log2 p of the model. Of these the coder's floor saved `floor_saved_bits`: a token that the model
    gives less than 2^-24 costs 24 bits. `overhead_bits` is what the payload takes beyond the rest. `escaped` counts
    bytes of the original that no token stands for, `escape_bytes` what they take in the file; header and checksums are
    what is neither payload nor escapes.
    """

    file: bytes
    n_bytes: int
    n_tokens: int
    payload_bytes: int
    escape_bytes: int
    escaped: int
    ideal_bits: float
    floor_saved_bits: float
    seconds: float

    @property
    def header_bytes(self) -> int:
        return len(self.file) - self.payload_bytes - self.escape_bytes

    @property
    def overhead_bits(self) -> float:
        return 8 * self.payload_bytes - (self.ideal_bits - self.floor_saved_bits)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of the whole file per byte of the original; None for an original without a byte."""
        return 8 * len(self.file) / self.n_bytes if self.n_bytes else None

    @property
    def escape_share(self) -> float:
        """Share of the original's bytes that travelled by the escape path."""
        return self.escaped / self.n_bytes if self.n_bytes else 0.0


def default_chunking(
    coder: Coder, tokens: int, chunk_tokens: int | None = None, context_length: int | None = None, overlap: int = 0
) -> Chunking:
    """Chunks as long as the context where at least 32 of them go side by side, shorter ones (down to 256 tokens) where
    the text is too short for that; as many lanes as a gigabyte of keys and values allows, 128 at most. An overlap is
    for chunks longer than a window.

    ValueError: a context longer than the model's, no token a chunk, an overlap that leaves no room for a new token.
    """
    longest: int = getattr(coder.model.config, "max_position_embeddings", None) or NO_LIMIT
    context = longest if context_length is None else context_length
    starts = int(coder.bos is not None)
    if not 2 <= context <= longest:
        raise ValueError(
            f"context_length is {context}, and the model reads 2 to {longest} positions; take one of them."
        )
    room = context - starts
    if chunk_tokens is None:
        chunk_tokens = min(room, max(SHORTEST_CHUNK, -(-tokens // FEWEST_LANES)))
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}; take more.")
    positions = max(2, min(context, chunk_tokens + starts))
    lanes = min(MOST_LANES, max(1, CACHE_BUDGET // (positions * cache_bytes(coder.model))))
    return Chunking(chunk_tokens, positions, overlap if chunk_tokens > room else 0, lanes)


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of keys and values of one position in all layers."""
    config: Any = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * kept * width * next(model.parameters()).element_size()


def compress(
    data: bytes,
    coder: Coder,
    chunking: Chunking | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    pieces: Pieces | None = None,
) -> Coded:
    """The bytes as a file that `decompress` gives back exactly. `progress` is told tokens as they are coded."""
    start = time.perf_counter()
    pieces = split_bytes(data, coder.tokenizer) if pieces is None else pieces
    chunking = chunking or default_chunking(coder, len(pieces.tokens))
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; take more.")
    writer, ideal = RangeWriter(), np.zeros(2)

    def use(logits: Float[Tensor, "lanes vocabulary"], targets: Int[np.ndarray, "lanes"]) -> None:
        writer.write(targets, integer_weights(logits))
        ideal[:] += ideal_bits(logits, targets)

    with reproducible(threads):
        lockstep = Lockstep(coder.model, chunking, coder.vocabulary, coder.bos)
        probe = arithmetic_probe(lockstep, len(pieces.tokens))
        lockstep.encode(pieces.tokens, use, progress)
    payload, escapes = writer.words() if len(pieces.tokens) else b"", pack_escapes(pieces)
    header = {
        "model": coder.name,
        "revision": coder.revision,
        "commit": coder.commit,
        "weights": coder.fingerprint,
        "configuration": configuration_hash(coder.model),
        "tokenizer": coder.tokenizer_hash,
        "bos": coder.bos,
        "vocabulary": coder.vocabulary,
        "dtype": coder.dtype,
        "attention": coder.model.config._attn_implementation,
        "threads": threads,
        "chunking": asdict(chunking),
        "environment": environment(coder.device),
        "probe": probe,
        "tokens": len(pieces.tokens),
        "bytes": len(data),
        "content": digest(data).hex(),
    }
    file = Container(header, escapes, payload).pack()
    sizes = len(payload), len(escapes), pieces.escaped
    spent = float(ideal[0]), float(ideal[1])
    return Coded(file, len(data), len(pieces.tokens), *sizes, *spent, time.perf_counter() - start)


def decompress(
    file: bytes | Container,
    coder: Coder,
    progress: Progress | None = None,
    attempt: bool = False,
    name: str = "the file",
) -> bytes:
    """The original bytes, whose checksum was found right.

    `attempt` tries in spite of other libraries or another processor; the checksum decides. ValueError: a damaged file,
    another model, tokenizer, dtype, device, library or processor than the file was written with, or arithmetic that
    came out differently.
    """
    container = file if isinstance(file, Container) else Container.unpack(file, name)
    header = container.header
    check_header(header, name)
    check_coder(header, coder, attempt, name)
    texts, escapes = unpack_escapes(container.escapes, header["tokens"])
    tokens = np.zeros(0, np.int32)
    if header["tokens"]:
        reader = RangeReader(container.payload)
        with reproducible(header["threads"]):
            lockstep = Lockstep(coder.model, Chunking(**header["chunking"]), header["vocabulary"], header["bos"])
            if arithmetic_probe(lockstep, header["tokens"]) != header["probe"] and not attempt:
                raise ValueError(
                    f"this machine computes other logits from the same weights than the one that wrote {name}, so "
                    f"that nothing would be read rightly; it was written on {header['environment']['processor']} with "
                    f"{header['threads']} threads: go there, or --attempt, where the checksum decides."
                )
            tokens = lockstep.decode(header["tokens"], lambda logits: reader.read(integer_weights(logits)), progress)
    data = join_pieces(Pieces(tokens, texts, escapes), coder.tokenizer)
    if digest(data).hex() != header["content"]:
        raise ValueError(
            f"what came out of {name} has another checksum than what went in: the logits on this machine differ in "
            f"their last bits from those it was written with; nothing is written."
        )
    return data


def check_header(header: dict[str, Any], name: str) -> None:
    """ValueError for a header that lacks an entry, or whose numbers cannot be."""
    if missing := [key for key in HEADER if key not in header]:
        raise ValueError(f"{name} has a header without {', '.join(missing)}; it was not written by infocomp compress.")
    numbers = {"threads": 1, "tokens": 0, "bytes": 0, "vocabulary": 0}
    wrong = [key for key, least in numbers.items() if not (isinstance(header[key], int) and header[key] >= least)]
    wrong += ["dtype"] if header["dtype"] not in DTYPES else []
    try:
        Chunking(**header["chunking"])
        wrong += [] if header["environment"]["device"] else ["environment"]
    except (TypeError, ValueError, KeyError):
        wrong.append("chunking or environment")
    if wrong:
        raise ValueError(f"{name} has a header whose {wrong[0]} cannot be; it was not written by infocomp compress.")


def check_coder(header: dict[str, Any], coder: Coder, attempt: bool, name: str) -> None:
    """ValueError that says in which respect the coder at hand is another than the one that wrote."""
    wanted = {
        "weights": (header["weights"], coder.fingerprint, "the weights"),
        "configuration": (header["configuration"], configuration_hash(coder.model), "the configuration"),
        "tokenizer": (header["tokenizer"], coder.tokenizer_hash, "the tokenizer"),
        "dtype": (header["dtype"], coder.dtype, "the dtype"),
        "attention": (header["attention"], coder.model.config._attn_implementation, "the attention"),
    }
    for written, here, what in wanted.values():
        if written != here:
            raise ValueError(
                f"{name} was written with another model than this one: {what} must be {written}, and here it is "
                f"{here}; it names {named(header)}."
            )
    here = environment(coder.device)
    different = differences(header["environment"], here)
    same_kind = header["environment"]["device"] == here["device"]
    if not same_kind or (different and not attempt):
        raise ValueError(
            f"{name} can be read where it was written, and this is elsewhere: {'; '.join(different)}. Use the same"
            + (", or --attempt: the checksum then decides whether what comes out is right." if same_kind else ".")
        )


def configuration_hash(model: PreTrainedModel) -> str:
    """Hash of what a model's configuration says but its name, dtype and the library that wrote it: 16 hex digits."""
    entries = {name: value for name, value in model.config.to_dict().items() if name not in NOT_ARITHMETIC}
    return blake2b(json.dumps(entries, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def named(header: dict[str, Any]) -> str:
    """The model that a header asks for, in words."""
    revision = header["commit"] or header["revision"]
    return f"{header['model']}{f' at {revision}' if revision else ''}"


def arithmetic_probe(lockstep: Lockstep, tokens: int) -> str:
    """Hash of the logits of a few steps on a fixed sequence, in the shapes of the first group: 16 hex digits."""
    groups = lockstep.chunking.groups(tokens)
    if not groups:
        return ""
    seen = blake2b(digest_size=8)

    def use(logits: Float[Tensor, "lanes vocabulary"], targets: Int[np.ndarray, "lanes"]) -> None:
        seen.update(logits.float().cpu().numpy().tobytes())

    group = Group(0, groups[0].lanes * PROBE_STEPS, PROBE_STEPS, groups[0].lanes)
    sequence = np.arange(group.end) % lockstep.vocabulary
    lockstep.read_group(sequence, group, use)
    return seen.hexdigest()


def ideal_bits(logits: Float[Tensor, "lanes vocabulary"], targets: Int[np.ndarray, "lanes"]) -> tuple[float, float]:
    """−Σ log2 p of the targets under these logits, and how much of it is above 24 bits a token."""
    places = torch.from_numpy(np.asarray(targets, dtype=np.int64)).to(logits.device)
    chosen = logits.gather(1, places[:, None])[:, 0].double()
    nats = torch.logsumexp(logits.float(), dim=1).double() - chosen
    return bits(float(nats.sum())), bits(float((nats - FLOOR_NATS).clamp_(min=0).sum()))
