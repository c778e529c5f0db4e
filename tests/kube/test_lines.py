"""Lines from chunks."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vkubelet.kube.lines import LineSplitter


@given(lines=st.lists(st.binary().filter(lambda b: b"\n" not in b)), cuts=st.lists(st.integers(0, 200)))
def test_any_chunking_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"\n".join(lines)
    places = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    splitter = LineSplitter()
    found = [line for a, b in itertools.pairwise(places) for line in splitter.feed(stream[a:b])]
    if rest := splitter.rest():
        found.append(rest)
    assert found == [line for line in lines if line]
