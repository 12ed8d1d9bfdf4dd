"""Token tables from every kind of file, the rows asked for, rows cut from a corpus, and tables that are none."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_text import token_corpus

from infocomp.memorization.token_tables import read_token_table, rows_of_corpus

TABLE = np.random.default_rng(0).integers(0, 60_000, (9, 5))


def as_npy(folder, table=TABLE):
    np.save(folder / "t.npy", table.astype(np.uint16))
    return folder / "t.npy"


def as_npz(folder, table=TABLE):
    np.savez(folder / "t.npz", input_ids=table.astype(np.int32), index=np.arange(len(table)))
    return folder / "t.npz"


def as_parquet(folder, table=TABLE):
    columns = {"index": list(range(len(table))), "tokens": table.tolist()}
    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=4)
    return folder / "t.parquet"


def as_fixed_lists(folder, table=TABLE):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
    pq.write_table(pa.table({"input_ids": lists}), folder / "f.parquet")
    return folder / "f.parquet"


def as_jsonl(folder, table=TABLE):
    lines = [json.dumps({"index": i, "tokens": row}) + "\n" for i, row in enumerate(table.tolist())]
    with gzip.open(folder / "t.jsonl.gz", "wt") as file:
        file.write("".join(lines) + "\n")
    return folder / "t.jsonl.gz"


def as_plain_lists(folder, table=TABLE):
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.tolist()))
    return folder / "p.jsonl"


def as_csv_column(folder, table=TABLE):
    lines = [f'"{row}",{i}\n' for i, row in enumerate(table.tolist())]
    (folder / "t.csv").write_text("\ufefftokens,index\n" + "".join(lines), encoding="utf-8")
    return folder / "t.csv"


def as_csv_cells(folder, table=TABLE):
    np.savetxt(folder / "c.csv", table, fmt="%d", delimiter=", ")
    return folder / "c.csv"


KINDS = [as_npy, as_npz, as_parquet, as_fixed_lists, as_jsonl, as_plain_lists, as_csv_column, as_csv_cells]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_of_file_gives_the_same_rows(write, tmp_path):
    path = write(tmp_path)
    for rows, expected in ((None, TABLE), (4, TABLE[:4]), (50, TABLE), ([7, 0, 7], TABLE[[7, 0, 7]])):
        table = read_token_table(path, rows=rows)
        assert table.dtype == np.int64 and table.tolist() == expected.tolist(), rows
    with pytest.raises(ValueError, match=r"row 9 of '.*' is asked for, and it has 9 rows"):
        read_token_table(path, rows=np.array([0, 9]))


def test_a_column_can_be_named(tmp_path):
    pq.write_table(pa.table({"tokens": [[1, 2]], "other": [[3, 4]]}), tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", only=TABLE)
    (tmp_path / "t.csv").write_text("other,tokens\n5 6,1 2\n")
    assert read_token_table(tmp_path / "t.parquet", "other").tolist() == [[3, 4]]
    assert read_token_table(tmp_path / "t.csv", "other").tolist() == [[5, 6]]
    assert (read_token_table(tmp_path / "t.npz") == TABLE).all(), "one array alone needs no name"
    for name in ("t.parquet", "t.npz", "t.csv"):
        with pytest.raises(ValueError, match=r"has no 'nothing'; it has '"):
            read_token_table(tmp_path / name, "nothing")


def test_only_the_rows_asked_for_are_read_from_a_table_larger_than_memory(tmp_path):
    path = tmp_path / "large.npy"
    shape = (10**9, 2049)  # 4 TB, of which the file system holds none
    table = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
    table[10**9 - 1] = 7
    del table
    assert (read_token_table(path, rows=[10**9 - 1, 0]) == [[7] * 2049, [0] * 2049]).all()
    with pytest.raises(ValueError, match=r"1,000,000,000 rows of 2,049 tokens .* take 15,266 GiB, and the machine has"):
        read_token_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"1 2", r"'.*t\.txt' is no token table that can be read; give \.npy"),
        ("t.npy.gz", b"", r"is no token table that can be read"),
        ("t.npy", b"junk", r"cannot be read as NumPy's \.npy"),
        ("t.npz", b"junk", r"cannot be read as NumPy's \.npz"),
        ("t.parquet", b"junk", r"is no sound Parquet file"),
        ("t.jsonl", b"", r"holds no token: at least one row"),
        ("t.jsonl", b"{1}", r"line 1 of '.*' is not JSON"),
        ("t.jsonl", b'"a"\n', r"line 1 of '.*' holds no list of token ids"),
        ("t.jsonl", b'{"tokens": 4}\n', r"line 1 of '.*' holds no list of token ids"),
        ("t.jsonl", b'{"text": [4]}\n', r"has no 'tokens' or 'input_ids'; it has 'text'; name the column"),
        ("t.jsonl", b"[1, 2]\n[1, 2, 3]\n", r"row 1 of '.*' has 3 tokens, row 0 has 2: rows of one length are needed"),
        ("t.jsonl", b"[1, 2]\n[1, null]\n", r"row 1 of '.*' is no list of whole numbers"),
        ("t.jsonl", b"[1, 2.5]\n", r"row 0 of '.*' is no list of whole numbers"),
        ("t.jsonl", b"[1, -100]\n", r"holds the token id -100; ids are 0 or more"),
        ("t.csv", b"", r"holds no token"),
        ("t.csv", b"1,2\n3,x\n", r"line 2 of '.*' holds something other than whole numbers"),
        ("t.csv", b"a,b\n1,2\n", r"has no 'tokens' or 'input_ids'; it has 'a', 'b'"),
    ],
)
def test_what_is_no_token_table_is_said_in_one_sentence(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_token_table(tmp_path / name)


def test_tables_of_the_wrong_shape_or_type_are_said_in_one_sentence(tmp_path):
    np.save(tmp_path / "t.npy", TABLE.astype(float))
    with pytest.raises(ValueError, match=r"holds float64 of shape \(9, 5\), and whole numbers"):
        read_token_table(tmp_path / "t.npy")
    np.save(tmp_path / "t.npy", TABLE.ravel())
    with pytest.raises(ValueError, match=r"of shape \(45,\)"):
        read_token_table(tmp_path / "t.npy")
    pq.write_table(pa.table({"tokens": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"column 'tokens' of '.*' holds int64; lists"):
        read_token_table(tmp_path / "t.parquet")
    pq.write_table(pa.table({"tokens": [[1, 2], None]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"has empty cells"):
        read_token_table(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"there is no file or folder '.*none\.npy'; closest in"):
        read_token_table(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"is 2 files, and one token table is needed"):
        read_token_table(tmp_path)


@pytest.mark.parametrize("rows", [0, -1, [], [-1], [0.5], [[1]]])
def test_rows_that_cannot_be_asked_for_are_said_in_one_sentence(rows, tmp_path):
    with pytest.raises(ValueError, match=r"rows must be "):
        read_token_table(as_npy(tmp_path), rows=rows)


def test_rows_are_cut_from_each_document_and_never_across_two():
    corpus = token_corpus([7, 2, 0, 6, 3])
    cut = rows_of_corpus(corpus, 3)
    assert cut.documents.tolist() == [0, 0, 3, 3, 4] and cut.starts.tolist() == [0, 3, 9, 12, 15]
    assert cut.rows.dtype == np.int64
    assert cut.rows.tolist() == [corpus.tokens[start : start + 3].tolist() for start in (0, 3, 9, 12, 15)]


def test_documents_that_are_too_short_are_said_in_one_sentence():
    with pytest.raises(
        ValueError, match=r"corpus 'made' is too short: its longest document has 7 tokens, and rows of 8"
    ):
        rows_of_corpus(token_corpus([7, 2]), 8)
    with pytest.raises(ValueError, match=r"length must be at least 1 token, got 0"):
        rows_of_corpus(token_corpus([7, 2]), 0)
