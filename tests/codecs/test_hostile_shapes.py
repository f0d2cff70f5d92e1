"""Shapes that no array has, in every format that names a shape: refused by the limit they break."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from batcher.codecs.content import Content
from batcher.codecs.formats import msgpack_maps, npy
from batcher.codecs.oip.request import read_head
from batcher.errors import InvalidInput
from tests.support.codec_inputs import one_input

SPEC = one_input()


def as_msgpack(shape: list[int]) -> None:
    array = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": shape, b"data": b""}
    msgpack_maps.decode(Content(msgpack.packb({"inputs": {"x": array}})), SPEC)


def as_npy(shape: list[int]) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}\n".encode()
    npy.decode(Content(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text), SPEC)


def as_oip(shape: list[int], **more: Any) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, **more}
    read_head(json.dumps({"inputs": [entry]}).encode(), SPEC)


def as_oip_json(shape: list[int]) -> None:
    as_oip(shape, data=[])


def as_oip_binary(shape: list[int]) -> None:
    as_oip(shape, parameters={"binary_data_size": 0})


FORMS = [as_msgpack, as_npy, as_oip_json, as_oip_binary]


@pytest.mark.parametrize("send", FORMS)
@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ([1] * 33, "at most 32 axes; got 33"),
        ([2**31, 2], "at most 2147483647 elements"),
        ([2**63 - 1, 0], "at most 2147483647 elements"),
        ([0, 2**31], "at most 2147483647 elements"),
        ([-1, 2], "whole numbers"),
    ],
    ids=str,
)
def test_a_shape_beyond_a_limit_is_refused_by_its_name(
    send: Callable[[list[int]], None], shape: list[int], limit: str
) -> None:
    with pytest.raises(InvalidInput, match=limit):
        send(shape)


@pytest.mark.parametrize("send", [as_msgpack, as_oip_json, as_oip_binary])
def test_a_hundred_thousand_axes_are_counted_and_not_multiplied(
    send: Callable[[list[int]], None],
) -> None:
    with pytest.raises(InvalidInput, match="got 100000") as caught:
        send([2**62] * 100_000)
    assert len(str(caught.value)) < 200


def test_axes_beside_one_of_no_elements_are_as_large_as_numpy_can_count() -> None:
    with pytest.raises(InvalidInput, match="at most 9223372036854775807 bytes"):
        as_msgpack([0, *[2**30] * 3])
