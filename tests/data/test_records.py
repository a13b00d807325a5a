"""Records: every kind gives the GeoTIFFs' values back, and a hostile or broken one is refused without running."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import shutil
import struct
from contextlib import closing

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from tests.conftest import encoder_record

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.bands import S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS
from bigearthnet_cbir.data.labels import CLASSES, multi_hot
from bigearthnet_cbir.data.safe_pickle import unpickle
from bigearthnet_cbir.errors import DataError


@pytest.fixture(scope="session")
def s2(real_pairs, true_patches):
    return true_patches[real_pairs.pairs[0].s2]


@pytest.fixture(scope="session")
def s1(real_pairs, true_patches):
    return true_patches[real_pairs.pairs[0].s1]


def assert_same_bands(found, expected):
    assert found.keys() == expected.keys()
    for band, pixels in expected.items():
        np.testing.assert_array_equal(found[band], pixels, err_msg=band)


def test_encoding_is_lossless_and_readable_by_the_safetensors_package(true_patches):
    for patch in true_patches.values():
        record = records.encode_record(patch.bands, patch.labels)
        decoded = records.decode(record)
        assert decoded.labels == patch.labels
        assert_same_bands(decoded.bands, patch.bands)
        assert all(decoded.bands[band].dtype == pixels.dtype for band, pixels in patch.bands.items())
        assert_same_bands(load(record), patch.bands)


def test_encoding_is_reproducible_and_labels_may_be_absent_or_empty(s1):
    assert records.encode_record(s1.bands, s1.labels) == records.encode_record(
        dict(reversed(s1.bands.items())), s1.labels
    )
    assert records.decode(records.encode_record(s1.bands, None)).labels is None
    assert records.decode(records.encode_record(s1.bands, ())).labels == ()


@pytest.mark.parametrize("labels", [None, (), CLASSES[:3], CLASSES])
def test_records_are_those_of_the_safetensors_package_byte_for_byte(true_patches, labels):
    """The header comes from the cache for all patches but the first; the pixels in any layout in memory."""
    metadata = {"writer": "bigearthnet-cbir"} if labels is None else {"labels": json.dumps(labels)}
    for patch in true_patches.values():
        floats = {band: pixels.astype("f4") for band, pixels in patch.bands.items()}
        some = {band: pixels for band, pixels in patch.bands.items() if band not in ("B01", "B09")}
        for bands in (patch.bands, floats, some):
            expected = save({band: np.ascontiguousarray(bands[band]) for band in sorted(bands)}, metadata=metadata)
            assert records.encode_record(bands, labels) == expected
            for layout in (np.asfortranarray, lambda pixels: pixels.astype(pixels.dtype.newbyteorder(">"))):
                laid_out = {band: layout(pixels) for band, pixels in bands.items()}
                assert records.encode_record(laid_out, labels) == expected


def test_decoded_arrays_are_views_of_the_record(s2):
    record = records.encode_record(s2.bands, s2.labels)
    whole = np.frombuffer(record, np.uint8)
    assert all(np.shares_memory(pixels, whole) for pixels in records.decode(record).bands.values())


@pytest.mark.parametrize("protocol", range(2, 6))
def test_original_pickles_of_every_protocol_are_read(s2, protocol):
    bands = s2.bands
    groups = (S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS)
    stacks = [np.stack([bands[band] for band in group]).astype("f4") for group in groups]
    record = pickle.dumps((*stacks, multi_hot(s2.labels).astype("f8")), protocol)
    patch, kind = records.decode_with_kind(record)
    assert kind is records.RecordKind.ORIGINAL_S2
    assert patch.labels == s2.labels
    assert_same_bands(patch.bands, bands)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_spellings_of_numpy_are_read(s1, module):
    record = pickle.dumps((s1.bands["VV"][None], s1.bands["VH"][None], multi_hot(s1.labels).astype("f8")), 4)
    assert b"numpy._core.multiarray" in record
    spelt = _unframed(record).replace(_short_text("numpy._core.multiarray"), _short_text(module))
    assert_same_bands(records.decode(spelt).bands, s1.bands)


def _short_text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _unframed(record: bytes) -> bytes:
    """Drop the frame opcodes, which hold lengths that editing the text would falsify."""
    starts = [position for opcode, _, position in pickletools.genops(record) if opcode.name == "FRAME"]
    for start in reversed(starts):
        record = record[:start] + record[start + 9 :]
    return record


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_column_order_and_big_endian_arrays_are_read_as_their_values(s1, protocol):
    vv, vh = np.asfortranarray(s1.bands["VV"][None]), s1.bands["VH"][None].astype(">f4")
    assert not vv.flags.c_contiguous
    decoded = records.decode(pickle.dumps((vv, vh, multi_hot(s1.labels).astype("f8")), protocol))
    assert_same_bands(decoded.bands, s1.bands)
    assert all(pixels.dtype.isnative for pixels in decoded.bands.values())


class _Runs:
    """Its unpickling makes a folder: what an attacker would do, harmlessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    for protocol in range(2, 6):
        record = pickle.dumps((_Runs(mark), 1, 2), protocol)
        with pytest.raises(DataError, match=r"pickle is refused: .*\w+\.mkdir"):
            records.decode(record)
        assert not mark.exists()
    pickle.loads(record)
    assert mark.exists(), "the attack itself must work, or the test shows nothing"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("bigearthnet_patch_interface.merged_interface", "os.system"),
        ("bigearthnet_patch_interface.evil", "Patch"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_any_other_name_is_refused(module, name):
    record = b"\x80\x04" + _short_text(module) + _short_text(name) + b"\x93."
    with pytest.raises(DataError, match="pickle is refused"):
        records.decode(record)


def test_a_pickle_cannot_leave_state_in_the_stand_ins(s1):
    """BUILD on a stand-in class or function must fail, not set an attribute that the next record would meet."""
    state = b"N}" + _short_text("array") + b"K\x01s\x86b."
    for module, name in (("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")):
        with pytest.raises(DataError, match="refused"):
            records.decode(b"\x80\x04" + _short_text(module) + _short_text(name) + b"\x93" + state)
    assert_same_bands(records.decode(_original_s1(s1)).bands, s1.bands)


def _original_s1(patch, **changes) -> bytes:
    bands = {**patch.bands, **changes}
    return pickle.dumps((bands["VV"][None], bands["VH"][None], multi_hot(patch.labels).astype("f8")))


def test_records_are_refused_when_cut_anywhere(s1):
    for record in (records.encode_record(s1.bands, s1.labels), _original_s1(s1)):
        for length in (0, 1, 7, 9, 40, 300, len(record) // 2, len(record) - 1):
            with pytest.raises(DataError):
                records.decode(record[:length])


def test_object_arrays_are_refused(s1):
    record = pickle.dumps((np.array([None]), s1.bands["VH"][None], np.zeros(19)))
    with pytest.raises(DataError, match="its pickle is refused"):
        records.decode(record)


def test_wrong_shapes_in_pickles_are_refused(s1):
    with pytest.raises(DataError, match=r"bands VV are stacked as \(1, 60, 60\)"):
        records.decode(_original_s1(s1, VV=s1.bands["VV"][:60, :60]))


def test_a_label_that_is_not_multi_hot_is_refused(s1):
    record = pickle.dumps((s1.bands["VV"][None], s1.bands["VH"][None], np.full(19, 0.5)))
    with pytest.raises(DataError, match="not a vector of 19 zeros and ones"):
        records.decode(record)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_in_every_kind(s1, value):
    spoilt = s1.bands["VV"].copy()
    spoilt[3, 4] = value
    bands = {**s1.bands, "VV": spoilt}
    plain = bytearray(records.encode_record(s1.bands, s1.labels))
    plain[-4:] = np.float32(value).tobytes()
    for record in (bytes(plain), _original_s1(s1, VV=spoilt)):
        with pytest.raises(DataError, match=r"band V[VH] holds NaN or infinite"):
            records.decode(record)
    with pytest.raises(DataError, match="band VV holds NaN or infinite"):
        records.encode_record(bands, None)


def _saved(bands) -> bytes:
    return save({band: np.ascontiguousarray(pixels) for band, pixels in bands.items()})


@pytest.mark.parametrize("band", ["B03", "B11", "B01"])
def test_a_sentinel_2_record_of_two_data_types_is_refused_by_band(s2, band):
    """In a batch of the other data type its values would wrap: -19242.25 became 46294."""
    mixed = {**s2.bands, band: np.full(s2.bands[band].shape, -19242.25, np.float32)}
    stacks = [np.stack([mixed[name] for name in group]) for group in (S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS)]
    wider = pickle.dumps((*stacks, multi_hot(s2.labels).astype("f8")))
    for attempt in (
        lambda: records.encode_record(mixed, None),
        lambda: records.decode(_saved(mixed)),
        lambda: records.decode(wider),
    ):
        with pytest.raises(DataError, match=r"band B\w+ is uint16 and band B\w+ float32, .* one data type"):
            attempt()
    assert records.decode(_saved({name: pixels.astype(np.float32) for name, pixels in s2.bands.items()})).bands


@pytest.mark.parametrize("band", ["VV", "VH"])
def test_sentinel_1_that_is_no_decibels_is_refused_by_band(s1, band):
    counts = {**s1.bands, band: np.full((120, 120), 7, np.uint16)}
    for attempt in (
        lambda: records.encode_record(counts, None),
        lambda: records.decode(_saved(counts)),
        lambda: records.decode(_original_s1(s1, **{band: counts[band]})),
    ):
        with pytest.raises(DataError, match=f"band {band} is uint16, but Sentinel-1 is float32 decibels"):
            attempt()


@pytest.mark.parametrize(("band", "value"), [("VV", 501), ("VV", -3e38), ("B02", -1), ("B02", 65536), ("B11", 1e30)])
def test_values_that_are_no_decibels_and_no_reflectance_are_refused(s1, s2, band, value):
    """A bit that flips in the exponent of a float makes such a value: finite, and no measurement."""
    source = {**s1.bands, **{name: pixels.astype("f4") for name, pixels in s2.bands.items()}}
    sensor = s1.bands if band in s1.bands else s2.bands
    bands = {name: source[name] for name in sensor}
    bands[band] = bands[band].copy()
    bands[band][5, 6] = value
    with pytest.raises(DataError, match=rf"band {band} holds .*, no valid value in (decibels|reflectance x 10 000)"):
        records.encode_record(bands, None)
    with pytest.raises(DataError, match=rf"band {band} holds"):
        records.decode(save(bands))


def _with_header(record: bytes, change) -> bytes:
    end = 8 + struct.unpack("<Q", record[:8])[0]
    header = json.loads(record[8:end])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + record[end:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("B05"), "band B05 is missing"),
        (lambda header: header.update(B10=header.pop("B05")), "'B10' is not a band"),
        (lambda header: header["B05"].update(shape=[30, 120]), r"band B05 is \[30, 120\] of 'U16'"),
        (lambda header: header["B05"].update(dtype="I64"), "band B05 is .* of 'I64'"),
        (lambda header: header["B05"].update(data_offsets=[-7200, 0]), r"band B05 .*bytes \[-7200, 0\]"),
        (lambda header: header["B05"].update(data_offsets=[10**9, 10**9 + 7200]), "bands before it end at"),
        (lambda header: header["B05"].update(data_offsets=header["B06"]["data_offsets"]), "bands before it end at"),
        (lambda header: header["B05"].update(dtype=["I64"] * 99), "header is malformed"),
        (lambda header: header.update(__metadata__={"labels": '{"Pastures": 1}'}), "header is malformed"),
        (lambda header: header.update(__metadata__={"labels": "[" * 5000}), "header is malformed"),
        (lambda header: header.update(__metadata__="-1"), "header is malformed"),
        (lambda header: header.update(__metadata__={"labels": "[[1]]"}), r"a label is \[1\]"),
        (lambda header: header.update(B05=3), "header is malformed"),
        (lambda header: header.update(__metadata__={"labels": '["Moon"]'}), "label 'Moon' is in neither"),
        (lambda header: header.clear(), "is missing from the record"),
    ],
    ids=[
        "missing",
        "unknown",
        "shape",
        "dtype",
        "negative",
        "beyond",
        "overlap",
        "list",
        "labels by name",
        "deep",
        "no table",
        "label list",
        "no field",
        "label",
        "empty",
    ],
)
def test_malformed_safetensors_are_refused(s2, change, message):
    with pytest.raises(DataError, match=message):
        records.decode(_with_header(records.encode_record(s2.bands, s2.labels), change))


def test_other_bytes_are_refused():
    for record in (b"", b"hello", b"\x89PNG\r\n\x1a\n0000", os.urandom(64).replace(b"{", b" "), b"\x80" * 50):
        with pytest.raises(DataError):
            records.decode(record)


def test_pickled_numbers_are_no_patch():
    with pytest.raises(DataError, match=r"neither .* arrays .* nor a patch object"):
        records.decode(pickle.dumps([1, 2, 3]))


def test_the_19_classes_of_a_patch_object_win_over_its_43(real_pairs, true_patches):
    pair = real_pairs.pairs[0]
    told = true_patches[pair.s2]._replace(labels=CLASSES[14:16])
    patch, kind = records.decode_with_kind(encoder_record(true_patches[pair.s1], told, real_pairs, pair))
    assert kind is records.RecordKind.ENCODER
    assert patch.labels == CLASSES[14:16] != true_patches[pair.s2].labels


def _program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def _doubled(kind: bytes, times: int = 40) -> bytes:
    """A container that holds itself twice, again and again: some 40 bytes each, 2**40 when it is written out."""
    steps = [b"h" + bytes([i]) + b"h" + bytes([i]) for i in range(times)]
    if kind == b"tuple":
        made = [b")", *(step + b"\x86" for step in steps)]
    else:
        made = [b"]", *(b"](" + step + b"e" for step in steps)]
    return b"".join(step + b"q" + bytes([i]) + b"0" for i, step in enumerate(made)) + b"h" + bytes([times])


_DTYPE = _short_text("numpy") + _short_text("dtype") + b"\x93"
_ARRAY = _short_text("numpy._core.numeric") + _short_text("_frombuffer") + b"\x93"
BOMBS = {
    "4 GB for a place in the memo": _program(b"Nr\xff\xff\xff\x0f"),
    "64 GB for a bytearray": _program(b"\x96" + struct.pack("<Q", 1 << 36), b"x"),
    "64 GB of text": _program(b"\x8d" + struct.pack("<Q", 1 << 36), b"x"),
    "a number of 2 GB": _program(b"\x8b\xff\xff\xff\x7f", b"x"),
    "2**40 steps to hash a key": _program(_doubled(b"tuple"), b"q\x290}h\x29K\x01s"),
    "2**40 steps to hash a data type": _program(_DTYPE, _doubled(b"tuple"), b"\x85R"),
    "2**40 characters in a message": _program(_DTYPE, _doubled(b"list"), b"\x85R"),
    "2**40 characters of a shape": _program(
        _ARRAY, b"C\x04abcd", _DTYPE, _short_text("f4"), b"\x85R", _doubled(b"tuple"), b"\x8c\x01C(tR"
    ),
    "a million operations": _program(b"N0" * 500_000, b"N"),
    "copies of one array": _program(
        b"B" + struct.pack("<I", 1 << 20), bytes(1 << 20), b"\x940", _DTYPE, _short_text("f8"), b"\x85R\x940",
        b"".join([_ARRAY, b"(h\x00h\x01J\x00\x00\x02\x00\x85\x8c\x01CtR0"] * 300), b"N",
    ),
    "a state for what has none": _program(_DTYPE, b"}b"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_program_that_would_take_all_memory_or_time_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="its pickle is refused: "):
        records.decode(BOMBS[name])


def test_labels_that_hold_themselves_are_refused(archives, tmp_path):
    """Written out as text they would be 2**40 characters; everything else in the record is sound."""
    # A copy: a process may open an LMDB once, and another test's store may have it open.
    environment = lmdb.open(str(shutil.copytree(archives["encoder"].s2, tmp_path / "copy")), readonly=True, lock=False)
    with closing(environment), environment.begin() as transaction:
        record = bytes(next(iter(transaction.cursor()))[1])
    state = b"}" + _short_text("new_labels") + b"](" + _doubled(b"list") + b"esb."
    with pytest.raises(DataError, match="its labels are not text"):
        records.decode(record[:-1] + state)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("<f4", ">f4", "<f8", "u1", "<u2", ">u2", "<i8")),
            st.lists(st.integers(1, 5), min_size=1, max_size=3),
            st.booleans(),
        ),
        min_size=1, max_size=5,
    ),
    st.integers(2, 5),
)  # fmt: skip
def test_every_array_is_read_as_pickle_reads_it(specifications, protocol):
    arrays = tuple(
        np.asarray(np.arange(int(np.prod(shape))).reshape(shape).astype(dtype), order="F" if is_fortran else "C")
        for dtype, shape, is_fortran in specifications
    )
    found = unpickle(pickle.dumps(arrays, protocol))
    for stored, array in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(stored.array, array)
        assert stored.array.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_records_of_one_program_keep_their_own_pixels_and_labels(s1, protocol):
    """What was found out for one record holds for the next only where they agree outside of their arrays."""

    def record(offset, labels):
        hot = multi_hot(labels).astype("f8")
        return pickle.dumps((s1.bands["VV"][None] + np.float32(offset), s1.bands["VH"][None], hot), protocol)

    for offset, labels in ((0, s1.labels), (1, ("Pastures",)), (2, ()), (3, s1.labels)):
        patch = records.decode(record(offset, labels))
        np.testing.assert_array_equal(patch.bands["VV"], s1.bands["VV"] + np.float32(offset))
        assert patch.labels == labels
    for wrong in (np.nan, np.inf):
        with pytest.raises(DataError, match="band VV holds NaN or infinite"):
            records.decode(record(wrong, s1.labels))
    changed = bytearray(record(0, s1.labels))
    changed[2] ^= 1  # the same length, another program
    try:
        patch = records.decode(bytes(changed))
        np.testing.assert_array_equal(patch.bands["VV"], s1.bands["VV"])
    except DataError:
        pass
