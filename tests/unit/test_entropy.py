"""The entropy coder: exact, short, safe."""

from __future__ import annotations

import copy
import struct
import zlib

import constriction
import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from hypothesis import given, settings
from hypothesis import strategies as st

from fcbench.coders.escapes import exact_model
from fcbench.coders.strings import StringDecoder, StringEncoder, checksum
from fcbench.coders.tables import MAX_SYMBOL, EntropyTables, Groups
from fcbench.core.errors import FcbenchError


def make_tables(rows: list[list[int]], offset: list[int], escape: bool) -> EntropyTables:
    """Tables of integer frequencies; each row sums to 65536."""
    width = max(map(len, rows)) + 1
    cdf = torch.zeros(len(rows), width, dtype=torch.int32)
    for row, freq in zip(cdf, rows, strict=True):
        row[1 : len(freq) + 1] = torch.tensor(freq).cumsum(0)
    tables = EntropyTables()
    lengths = torch.tensor([len(r) + 1 for r in rows])
    tables.fill(cdf, lengths, torch.tensor(offset), escape)
    return tables


def scaled(weights: list[int]) -> list[int]:
    """Positive frequencies with sum 65536 in about these proportions."""
    free = 65536 - len(weights)
    freq = [1 + w * free // max(sum(weights), 1) for w in weights]
    freq[0] += 65536 - sum(freq)
    return freq


ROWS = st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=9).map(scaled), min_size=1, max_size=4)


@st.composite
def coded(draw: st.DrawFn) -> tuple[EntropyTables, np.ndarray, np.ndarray]:
    """Tables with escape, symbols anywhere below 2**24, and their table indexes."""
    rows = draw(ROWS)
    offset = draw(st.lists(st.integers(-9, 9), min_size=len(rows), max_size=len(rows)))
    near, far = st.integers(-12, 12), st.integers(1 - MAX_SYMBOL, MAX_SYMBOL - 1)
    symbols = draw(st.lists(near | far, min_size=1, max_size=60))
    n = len(symbols)
    index = draw(st.lists(st.integers(0, len(rows) - 1), min_size=n, max_size=n))
    tables = make_tables(rows, offset, escape=True)
    return tables, np.array(symbols, np.int32), np.array(index, np.uint8)


def encode(tables: EntropyTables, symbols: np.ndarray, groups: Groups) -> bytes:
    string = StringEncoder()
    string.put(tables, symbols, groups)
    return string.finish()["y"]


@settings(deadline=None, max_examples=200)
@given(coded())
def test_any_symbols_survive(case: tuple[EntropyTables, np.ndarray, np.ndarray]) -> None:
    tables, symbols, index = case
    groups = Groups.by_index(index, len(tables.length))
    payload = encode(tables, symbols, groups)
    assert np.array_equal(StringDecoder(payload).take(tables, groups), symbols)


@settings(deadline=None, max_examples=200)
@given(coded(), st.binary(max_size=80))
def test_any_bytes_decode_or_are_refused(case: tuple[EntropyTables, np.ndarray, np.ndarray], payload: bytes) -> None:
    tables, _, index = case
    groups = Groups.by_index(index, len(tables.length))
    try:
        symbols = StringDecoder(payload).take(tables, groups)
    except FcbenchError:
        return
    assert symbols.shape == index.shape and np.abs(symbols).max() < MAX_SYMBOL


def test_length_is_the_information_and_a_byte() -> None:
    rng = np.random.default_rng(0)
    overheads = []
    for _ in range(300):
        freq = np.array(scaled(rng.integers(0, 1000, 8).tolist()))
        tables = make_tables([freq.tolist()], [0], escape=False)
        symbols = rng.choice(8, size=rng.integers(1, 200), p=freq / 65536)
        payload = encode(tables, symbols.astype(np.int32), Groups.equal(1, len(symbols)))
        ideal_bytes = -np.log2(freq[symbols] / 65536).sum() / 8
        overheads.append(len(payload) - ideal_bytes)
    assert max(overheads) <= 1.01
    assert np.mean(overheads) < 0.6


def test_models_are_exact() -> None:
    freq = [1, 65000, 500, 34, 1]
    for symbol, count in enumerate(freq):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.array([symbol], np.int32), exact_model(np.array(freq)))
        _, (lower, width) = encoder.pos()
        unit = ((1 << 64) - 1 >> 24) << 8  # the coder's range, cut to 24 bits, over 65536
        assert width == unit * count
        assert lower == unit * sum(freq[:symbol])


def test_likely_symbols_cost_nothing() -> None:
    tables = make_tables([[1, 65534, 1]], [-1], escape=False)
    symbols = np.zeros(2000, np.int32)
    assert len(encode(tables, symbols, Groups.equal(1, 2000))) <= 1


def test_one_symbol() -> None:
    tables = make_tables([[65535, 1]], [5], escape=True)
    groups = Groups.equal(1, 1)
    for value in (5, 4, 6, MAX_SYMBOL - 1, 1 - MAX_SYMBOL):
        symbols = np.array([value], np.int32)
        payload = encode(tables, symbols, groups)
        assert StringDecoder(payload).take(tables, groups).tolist() == [value]


@pytest.mark.parametrize(
    ("symbols", "message"),
    [([], "no symbols"), ([MAX_SYMBOL], "2\\*\\*24"), ([-MAX_SYMBOL], "2\\*\\*24"), ([-(2**31)], "2\\*\\*24")],
)
def test_refusals(symbols: list[int], message: str) -> None:
    tables = make_tables([[60000, 5536]], [0], escape=True)
    with pytest.raises(FcbenchError, match=message):
        encode(tables, np.array(symbols, np.int32), Groups.equal(1, len(symbols)))


def test_outside_a_table_without_escape_is_refused() -> None:
    tables = make_tables([[60000, 5536]], [0], escape=False)
    with pytest.raises(FcbenchError, match="no escape"):
        encode(tables, np.array([2], np.int32), Groups.equal(1, 1))


def test_unfilled_and_wrong_tables_are_refused() -> None:
    with pytest.raises(FcbenchError, match="freeze"):
        encode(EntropyTables(), np.array([0], np.int32), Groups.equal(1, 1))
    for row in ([0, 5, 5, 65536], [0, 5, 9, 65535], [1, 5, 9, 65536]):
        with pytest.raises(FcbenchError, match="rise"):
            EntropyTables().fill(torch.tensor([row]), torch.tensor([4]), torch.tensor([0]), True)


def test_tables_load_and_copy_at_any_size() -> None:
    tables = make_tables([[1, 65534, 1], [60000, 5536]], [-1, 3], escape=True)
    assert tables.coder.n_tables == 2
    fresh = EntropyTables()
    fresh.load_state_dict(tables.state_dict())
    symbols = np.array([0, 0, 3, 90], np.int32)
    groups = Groups.equal(2, 2)
    payload = encode(tables, symbols, groups)
    for other in (fresh, copy.deepcopy(tables)):
        assert encode(other, symbols, groups) == payload


def test_stages_share_a_string() -> None:
    tables = make_tables([[1, 65534, 1], [30000, 35536]], [-1, 0], escape=True)
    first, second = np.array([0, 7, 0, 1], np.int32), np.array([1, 0, 0, 1, 1, 0], np.int32)
    order = Groups.by_index(np.array([1, 0, 1, 1, 1, 0], np.uint8), 2)
    string = StringEncoder()
    string.put(tables, first, Groups.equal(2, 2))
    string.put(tables, second, order)
    decoder = StringDecoder(string.finish()["y"])
    assert np.array_equal(decoder.take(tables, Groups.equal(2, 2)), first)
    assert np.array_equal(decoder.take(tables, order), second)
    assert (decoder.n_symbols, decoder.check) == (10, string.check) == (10, checksum(first, second))


def test_checksum_is_of_little_endian_int32() -> None:
    short = zlib.crc32(struct.pack("<256i2i", *[0] * 256, 1, -1)) & 0xFFFF
    assert checksum(np.array([1, -1], ">i8")) == short
    assert checksum(np.array([1, -1], np.int32)) == short
    symbols = np.arange(-300, 400, dtype=np.int32)
    sums = [int(symbols[k] + symbols[k + 256]) for k in range(256)]
    rest = symbols[512:].tolist()
    long = zlib.crc32(struct.pack(f"<{256 + len(rest)}i", *sums, *rest)) & 0xFFFF
    assert checksum(symbols) == long


def test_checksum_sees_changes_and_wraps() -> None:
    rng = np.random.default_rng(0)
    symbols = rng.integers(-9, 9, 1000).astype(np.int32)
    before, seen = checksum(symbols), 0
    for place in range(len(symbols)):
        changed = symbols.copy()
        changed[place] += 1 + place % 3
        seen += checksum(changed) != before
    assert seen >= len(symbols) - 2  # 16 bits: one change in 65536 is missed
    assert checksum(symbols[:500], symbols[500:]) != before
    assert checksum(symbols[::-1].copy()) != before
    checksum(np.full(1 << 10, 2**31 - 1, np.int32))  # no overflow error


def test_pairs_are_two_symbols_with_one_index() -> None:
    rows = [scaled([1, 9, 1]), scaled([4, 5]), scaled([1, 2, 9, 2, 1])]
    tables = make_tables(rows, [-1, 0, -2], escape=True)
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, 200).astype(np.uint8)
    symbols = rng.integers(-3, 4, 400).astype(np.int32)
    twice = Groups.by_index(index.repeat(2), 3)
    pairs = Groups.by_index(index, 3, pairs=True)
    payload = encode(tables, symbols, pairs)
    assert payload == encode(tables, symbols, twice)
    assert np.array_equal(StringDecoder(payload).take(tables, pairs), symbols)


def test_size_matches_compressai() -> None:
    """An independent coder with the same tables and symbols needs as many bytes."""
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(32).eval()
    bottleneck.update(force=True, update_quantiles=True)
    x = torch.randn(1, 32, 8, 8) * torch.linspace(0.1, 8, 32)[:, None, None]
    reference = len(bottleneck.compress(x)[0])
    medians = bottleneck.quantiles[:, 0, 1].detach()[None, :, None, None]
    tables = EntropyTables()
    tables.fill(bottleneck.quantized_cdf, bottleneck.cdf_length, bottleneck.offset, escape=True)
    symbols = torch.round(x - medians).int().numpy().ravel()
    ours = len(encode(tables, symbols, Groups.equal(32, 64)))
    assert abs(ours - reference) <= 8 + 0.01 * reference
