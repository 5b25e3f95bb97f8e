"""Exact sizes of zlib's deflate streams at level 9, without the streams.

RFC 1951 defines the format; what it leaves open, zlib's deflate settles: which matches are taken, how long the code of
each symbol is, and which of the three kinds of block is used. The functions here settle it in the same way (level 9,
window 15, memLevel 8, default strategy), so the sizes are zlib's, whatever library Python is linked to. Inputs are so
short that they fill one block and lie in the window as a whole: nothing slides, and no earlier byte is out of reach.

zlib's search for matches is defined by a walk over all earlier places with the same hash, nearest first. `search` finds
what that walk finds and skips most places; where zlib would give the walk up early, `walk` follows it to the letter.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros

from harness.errors import require

LONGEST = 16_382
"""Bytes of the longest input: zlib ends a block at 16,383 symbols, and there are no more symbols than bytes."""

# RFC 1951, 3.2.5: a match is a length symbol, a distance symbol and extra bits. Length 258 has a symbol of its own.
LITERALS, END, LENGTHS, DISTANCES = 286, 256, 257, 30
LENGTH_EXTRA = np.array([0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0])
LENGTH_SYMBOL = np.append(np.repeat(np.arange(28), 2 ** LENGTH_EXTRA[:28])[:-1], 28) + LENGTHS
DISTANCE_EXTRA = np.array([0, 0] + [bits for bits in range(14) for _ in range(2)])
DISTANCE_SYMBOL = np.repeat(np.arange(DISTANCES, dtype=np.uint8), 2**DISTANCE_EXTRA)[:LONGEST]
# 3.2.6: code lengths of a fixed block.
FIXED_LITERAL, FIXED_DISTANCE = np.array([8] * 144 + [9] * 112 + [7] * 24 + [8] * 6), 5
# 3.2.7: code lengths are sent as symbols 0 .. 15 and three kinds of runs, whose own code lengths come in this order.
REPEAT, ZEROS, MANY_ZEROS, RUNS = 16, 17, 18, 19
RUN_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
LONGEST_CODE, LONGEST_RUN_CODE = 15, 7

# zlib's settings of level 9. A match of 258 bytes ends a search, and after one of at least GOOD a longer one is sought
# among a quarter of the places only; three bytes from further than FAR are no match.
SHORTEST_MATCH, LONGEST_MATCH, GOOD, PLACES, FAR = 3, 258, 32, 4096, 4096
FEW_PLACES = PLACES // 4
ZLIB_HASHES = 1 << 15

# Chains of places link equal beginnings of 3 and of 5 bytes, hashed by a multiplication.
SHORT, LONG = 3, 5
HASH_BITS = 13
FACTOR, TOP = np.uint64(0x9E3779B97F4A7C15), np.uint64(64 - HASH_BITS)
SHORT_TOP, LONG_TOP = np.uint64(64 - 8 * SHORT), np.uint64(64 - 8 * LONG)
FIRST = np.array([2 ** (8 * size) - 1 for size in range(9)], np.uint64)  # masks of the first bytes of a word
B1, B2, B4 = np.uint64(8), np.uint64(16), np.uint64(32)

# A tree's node in a heap, as one integer: frequency, depth and number. zlib orders by the first two alone.
NUMBER, DEPTH, FREQUENCY = (1 << 10) - 1, 1 << 10, 1 << 15
DEPTHS = FREQUENCY - DEPTH
NO_NODE = 1 << 40


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def zlib_hash(data: Any, at: int) -> int:
    return (data[at] << 10 ^ data[at + 1] << 5 ^ data[at + 2]) & (ZLIB_HASHES - 1)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def crowded(data: Any) -> bool:
    """Whether zlib may have more places to walk over than it is willing to.

    If a hash stands at more than FEW_PLACES of `places` places, so few others lie between that more than
    2 * FEW_PLACES - places of them are next to each other. All neighbours with equal hashes are counted.
    """
    places = data.size - 2
    equal = 0
    for at in range(places - 1):
        equal += zlib_hash(data, at) == zlib_hash(data, at + 1)
    return equal > 2 * FEW_PLACES - places


@njit(cache=True, nogil=True, error_model="numpy")
def link_as_zlib(data: Any, previous: Any) -> None:
    """previous[at] = the nearest earlier place with the same hash; 0 for none, so that place 0 is never found."""
    last = np.zeros(ZLIB_HASHES, np.uint16)
    for at in range(data.size - 2):
        h = zlib_hash(data, at)
        previous[at] = last[h]
        last[h] = at


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def link(word: Any, size: int, previous: Any, last: Any) -> None:
    """As `link_as_zlib`, for beginnings of SHORT bytes in previous[:size] and of LONG bytes in previous[size:].

    Other beginnings can share a hash, so places that are found have to be compared.
    """
    last[:] = 0
    for at in range(size - SHORT + 1):
        h = (word[at] << SHORT_TOP) * FACTOR >> TOP
        previous[at] = last[h]
        last[h] = at
    last[:] = 0
    for at in range(size - LONG + 1):
        h = (word[at] << LONG_TOP) * FACTOR >> TOP
        previous[size + at] = last[h]
        last[h] = at


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def read_words(data: Any, word: Any) -> None:
    """word[at] = the eight bytes from `at` on, the first one lowest; zeros follow the end."""
    size = data.size
    word[size:] = 0
    for at in range(size):
        word[at] = data[at]
    for at in range(size):
        word[at] |= word[at + 1] << B1
    for at in range(size):
        word[at] |= word[at + 2] << B2
    for at in range(size):
        word[at] |= word[at + 4] << B4


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def common(word: Any, place: int, at: int, most: int) -> int:
    """How many bytes from `place` and from `at` on are equal, up to `most`."""
    equal = 0
    while equal < most:
        different = word[place + equal] ^ word[at + equal]
        if different:
            equal += trailing_zeros(different) >> 3  # type: ignore[call-arg]
            break
        equal += 8
    return min(equal, most)


@njit(cache=True, nogil=True, error_model="numpy")
def walk(word: Any, previous: Any, at: int, length: int, most: int) -> tuple[int, int]:
    """zlib's search: over the nearest places with the same hash, the first of the longest matches wins.

    Returns its length and place, or `length` and 0 if none is longer than `length`.
    """
    start = 0
    left = FEW_PLACES if length >= GOOD else PLACES
    place: Any = np.int64(previous[at])
    while place != 0 and left != 0 and length < most:
        equal = common(word, place, at, most)
        if equal > length:
            length, start = equal, place
        place = np.int64(previous[place])
        left -= 1
    return length, start


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def search(word: Any, previous: Any, size: int, at: int, length: int, most: int) -> tuple[int, int]:
    """What `walk` finds, if all places may be walked over.

    A match that is longer by one has to agree in its last bytes too, which are rarer than the first bytes are: they
    lead to few places, nearest first as well.
    """
    start, nearest = 0, at
    while length < most:
        chain, skip = (size, length + 1 - LONG) if length + 1 >= LONG else (0, length + 1 - SHORT)
        tail = max(0, length + 1 - 8)
        mask = FIRST[length + 1 - tail]
        wanted = word[at + tail] & mask
        equal = 0
        place: Any = np.int64(previous[chain + at + skip])
        while place > skip:
            if word[place - skip + tail] & mask == wanted and place - skip < nearest:
                equal = common(word, place - skip, at, most)
                if equal > length:
                    break
            place = np.int64(previous[chain + place])
        if place <= skip:
            break
        start = nearest = place - skip
        length = equal
    return length, start


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def parse(data: Any, word: Any, previous: Any, all_places: bool, literal: Any, distance: Any) -> None:
    """Count the symbols of zlib's lazy matching: a match is taken unless a longer one begins at the next byte."""
    size = data.size
    at, length, start, open_literal = 0, SHORTEST_MATCH - 1, 0, 0
    while at < size:
        before, before_start = length, start
        length = SHORTEST_MATCH - 1
        most = min(LONGEST_MATCH, size - at)
        if before < most and previous[at]:
            if all_places:
                length, start = search(word, previous, size, at, before, most)
            else:
                length, start = walk(word, previous, at, before, most)
            if length == SHORTEST_MATCH and at - start > FAR:
                length = SHORTEST_MATCH - 1
        if before >= SHORTEST_MATCH and length <= before:
            literal[LENGTH_SYMBOL[before - SHORTEST_MATCH]] += 1
            distance[DISTANCE_SYMBOL[at - 1 - before_start - 1]] += 1
            at += before - 1
            length, open_literal = SHORTEST_MATCH - 1, 0
        else:
            literal[data[max(at - 1, 0)]] += open_literal  # the byte before is no match's
            open_literal = 1
            at += 1
    if size:
        literal[data[size - 1]] += open_literal
    literal[END] += 1


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def sift(heap: Any, size: int, root: int, node: int) -> None:
    """Put `node` into the heap below `root`, whose place is free. heap[size + 1] = NO_NODE.

    The smaller child moves up all the way down, then `node` climbs: it ends where zlib's descent puts it, and the way
    down has no branch to mispredict. Of children with equal keys the left one moves only if the right one does not.
    """
    hole = root
    child = 2 * hole
    while child <= size:
        left, right = heap[child], heap[child + 1]
        is_right = right <= left | NUMBER
        heap[hole] = right if is_right else left
        hole = child + is_right
        child = 2 * hole
    while hole > root and node <= heap[hole >> 1] | NUMBER:
        heap[hole] = heap[hole >> 1]
        hole >>= 1
    heap[hole] = node


@njit(cache=True, nogil=True, error_model="numpy")
def code_lengths(frequency: Any, limit: int, heap: Any, order: Any, parent: Any, length: Any) -> int:
    """Fill `length` with the Huffman code lengths of all symbols, at most `limit`; returns the last symbol with a code.

    A tree has two codes at least: the smallest symbols that lack one get it. `length`, `parent` and `order` have room
    for the inner nodes, which are numbered after the symbols.
    """
    symbols = frequency.size
    size, last = 0, -1
    for s in range(symbols):
        length[s] = 0
        if frequency[s]:
            size += 1
            heap[size] = frequency[s] * FREQUENCY + s
            last = s
    while size < 2:
        size += 1
        if last < 2:
            last += 1
            heap[size] = FREQUENCY + last
        else:
            heap[size] = FREQUENCY
    heap[size + 1] = NO_NODE
    for k in range(size // 2, 0, -1):
        sift(heap, size, k, heap[k])
    taken, inner = 0, symbols
    while size > 1:
        first, node = heap[1], heap[size]
        heap[size] = NO_NODE
        size -= 1
        sift(heap, size, 1, node)
        second = heap[1]
        order[taken], order[taken + 1] = first & NUMBER, second & NUMBER
        taken += 2
        parent[first & NUMBER] = parent[second & NUMBER] = inner
        both = (first & -FREQUENCY) + (second & -FREQUENCY)
        sift(heap, size, 1, both + max(first & DEPTHS, second & DEPTHS) + DEPTH + inner)
        inner += 1
    length[inner - 1] = 0
    too_long = 0
    for k in range(taken - 1, -1, -1):
        bits = length[parent[order[k]]] + 1
        too_long += bits > limit
        length[order[k]] = min(bits, limit)
    if too_long:
        shorten(symbols, limit, too_long, order, length)
    return last


@njit(cache=True, nogil=True, error_model="numpy")
def shorten(symbols: int, limit: int, too_long: int, order: Any, length: Any) -> None:
    """Mend a code whose longest codes were cut to `limit` bits: `too_long` nodes were.

    As often as needed, a leaf moves one level down and takes a cut one as its brother. The lengths are then dealt out
    again in the order in which nodes were joined, the longest first.
    """
    count = np.zeros(limit + 1, np.int64)
    for s in range(symbols):
        count[length[s]] += 1
    while too_long > 0:
        bits = limit - 1
        while count[bits] == 0:
            bits -= 1
        count[bits] -= 1
        count[bits + 1] += 2
        count[limit] -= 1
        too_long -= 2
    k = 0
    for bits in range(limit, 0, -1):
        while count[bits]:
            if order[k] < symbols:
                length[order[k]] = bits
                count[bits] -= 1
            k += 1


@njit(cache=True, nogil=True, error_model="numpy")
def count_runs(length: Any, last: int, run: Any) -> int:
    """Count the symbols that send the code lengths up to symbol `last`; returns their extra bits."""
    extra, s = 0, 0
    while s <= last:
        bits, left = length[s], 0
        while s <= last and length[s] == bits:
            s += 1
            left += 1
        if bits:
            run[bits] += 1
            left -= 1
            while left >= 3:
                run[REPEAT] += 1
                extra += 2
                left -= min(left, 6)
        else:
            while left > 10:
                run[MANY_ZEROS] += 1
                extra += 7
                left -= min(left, 138)
            if left >= 3:
                run[ZEROS] += 1
                extra += 3
                left = 0
        run[bits] += left
    return extra


@njit(cache=True, nogil=True, error_model="numpy")
def fill(data: Any, out: Any) -> None:
    """out[i] = bytes of the stream of data[i]; `data` uint8 (n, at most LONGEST), contiguous, `out` int64 (n,)."""
    size = data.shape[1]
    word = np.empty(size + 8, np.uint64)
    previous = np.empty(2 * size, np.uint16)
    last = np.empty(1 << HASH_BITS, np.uint16)
    literal, distance, run = np.empty(LITERALS, np.int64), np.empty(DISTANCES, np.int64), np.empty(RUNS, np.int64)
    heap = np.empty(LITERALS + 2, np.int64)
    order, parent = np.empty(2 * LITERALS, np.int16), np.empty(2 * LITERALS, np.int16)
    literal_bits, distance_bits = np.empty(2 * LITERALS, np.int16), np.empty(2 * DISTANCES, np.int16)
    run_bits = np.empty(2 * RUNS, np.int16)
    for i in range(data.shape[0]):
        row = data[i]
        read_words(row, word)
        all_places = not crowded(row)
        if all_places:
            link(word, size, previous, last)
        else:
            link_as_zlib(row, previous)
        literal[:], distance[:], run[:] = 0, 0, 0
        parse(row, word, previous, all_places, literal, distance)
        last_literal = code_lengths(literal, LONGEST_CODE, heap, order, parent, literal_bits)
        last_distance = code_lengths(distance, LONGEST_CODE, heap, order, parent, distance_bits)
        extra = fixed = dynamic = 0
        for s in range(LITERALS):
            fixed += literal[s] * FIXED_LITERAL[s]
            dynamic += literal[s] * literal_bits[s]
        for s in range(LITERALS - LENGTHS):
            extra += literal[LENGTHS + s] * LENGTH_EXTRA[s]
        for s in range(DISTANCES):
            fixed += distance[s] * FIXED_DISTANCE
            dynamic += distance[s] * distance_bits[s]
            extra += distance[s] * DISTANCE_EXTRA[s]
        dynamic += count_runs(literal_bits, last_literal, run) + count_runs(distance_bits, last_distance, run)
        code_lengths(run, LONGEST_RUN_CODE, heap, order, parent, run_bits)
        for s in range(RUNS):
            dynamic += run[s] * run_bits[s]
        sent = RUNS
        while run_bits[RUN_ORDER[sent - 1]] == 0:
            sent -= 1
        dynamic += 5 + 5 + 4 + 3 * max(sent, 4)
        # A block's header has 3 bits. A stored one goes on at the next byte with its length, twice in two bytes.
        coded = (3 + min(fixed, dynamic) + extra + 7) // 8
        out[i] = 1 + 4 + size if size + 4 <= coded else coded


def deflate_bytes(data: Any) -> Any:
    """int64 (n,): bytes of zlib's deflate stream (level 9) of every row of `data` uint8 (n, length).

    A zlib stream has 6 bytes more, a gzip file 18. Raises InputError if rows are longer than LONGEST.
    """
    require(data.dtype == np.uint8, "data.dtype", str(data.dtype), "view the rows as uint8")
    require(data.ndim == 2, "data.shape", data.shape, "give one input a row")
    require(data.shape[1] <= LONGEST, "data.shape", data.shape, f"leave inputs above {LONGEST} bytes to zlib")
    out = np.empty(len(data), np.int64)
    fill(np.require(data, requirements=["C", "W"]), out)  # one type to compile for
    return out
