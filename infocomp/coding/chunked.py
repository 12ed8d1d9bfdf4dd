"""Rate of a classical coder that starts cold every few bytes, in bits per byte: what a model's short context allows.

A language model that reads pieces of 2048 bytes forgets everything between two of them; beside it stands a classical
coder that forgets as often. Its header, which a file would need once, would weigh as much as a short piece: it is
counted once over all pieces. Source: Delétang et al. (2024), arXiv 2309.10668, section 3.1 and compress.py.

What is subtracted is the whole code of one zero byte, as in the source: header, trailer and the code of that byte. The
sum is thus no file that could be decoded (neither the pieces' ends nor their headers are in it), which is why the
sizes with every header stand in the settings beside it. Of the general coders brotli is the shortest on pieces of
English: its decoder carries a dictionary of 120 kB that no other has and no size counts.
"""

from infocomp.coding.classical import CodedSize, checked_code, coder_named, settings_text


def chunked_rate(data: bytes, chunk_bytes: int, coder: str) -> CodedSize:
    """Size and bits per byte of `data` cut into pieces of `chunk_bytes`, each coded alone, with one header in all.

    bytes = Σ len(code of a piece) − (pieces − 1) · len(code of one zero byte). The last piece may be shorter. Every
    piece is decoded and compared. The settings also hold the number of pieces, the header's bytes and the size with
    every header. Empty data, an unknown coder and a piece of less than a byte are a ValueError, a piece that does not
    come back is a RuntimeError.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes is {chunk_bytes}: a piece has at least 1 byte; Delétang et al. cut 2048.")
    if not data:
        raise ValueError("data has 0 bytes: a rate in bits per byte needs at least one; give the text that was scored.")
    known = coder_named(coder)
    pieces = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    with_headers = sum(len(checked_code(coder, known, piece)) for piece in pieces)
    header = len(known.encode(b"\0"))
    size = with_headers - (len(pieces) - 1) * header
    about = {"chunk_bytes": chunk_bytes, "chunks": len(pieces), "header_bytes": header, "header_rule": "counted once"}
    settings = settings_text({**known.settings, **about, "bytes_with_every_header": with_headers})
    return CodedSize(coder, size, 8 * size / len(data), settings)
