# SPDX-License-Identifier: Apache-2.0
"""Pickles that mean harm: each is refused with a message, and none of them runs anything."""

import io
import os
import pickle
import pickletools
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import scipy.sparse
from fake_flame import dump, fake_arrays, fake_chumpy
from hypothesis import given, settings
from hypothesis import strategies as st

from pointillist_hf.rigs import archive
from pointillist_hf.rigs.flame.array_decoding import decode_array, unwrap_dictionary
from pointillist_hf.rigs.flame.model_file import read_flame
from pointillist_hf.rigs.flame.restricted_pickle import EncodeLatin, load_records

CANARY = "canary"


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def touch_command():
    return f"touch {CANARY}"


def instance_opcode():
    """The INST opcode of protocol 0 names a class and calls it in one go."""
    return b"(S'touch canary'\nios\nsystem\n."


def stack_global():
    """Names that are put together on the stack, as protocol 4 does."""
    return b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R."


def dotted_name():
    return b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__mro__\x93."


def extension():
    return b"\x80\x02\x82\x01."


def persistent_id():
    return b"Ptouch canary\n."


def long_claim():
    """A string that claims 2**62 bytes."""
    return b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"short."


def huge_memo():
    """A memory place that would take 32 GiB to reach."""
    return b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b"."


def huge_array():
    """An array of a terabyte that holds four bytes."""
    data = dump({"v_template": np.zeros(1, np.float32)})
    return data.replace(b"K\x01\x85", b"\x8a\x05\x00\x00\x00\x00\x40\x85", 1)


def append_to_record():
    return b"\x80\x02cnumpy\nndarray\n)\x81(K\x01K\x02e."


def deep_nesting():
    return b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."


def sparse(**changes):
    """A joint regressor whose parts do not fit each other."""
    matrix = scipy.sparse.csc_matrix(np.eye(2))
    matrix.__dict__.update(changes)
    return dump({name: matrix for name in fake_arrays()})


def wrapping_columns():
    """Column starts whose differences wrap around to counts that add up."""
    return sparse(
        _shape=(1, 4),
        data=np.zeros(1),
        indices=np.zeros(1, np.int64),
        indptr=np.array([0, 2**62, -(2**63), -(2**62), 1]),
    )


def patched_function():
    """Sets the defaults of a function that the reader knows."""
    return b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__U\x06latin1\x85s\x86b."


def shared_dictionaries():
    """A kilobyte that is a tree of 100**7 dictionaries when it is walked."""
    value = {}
    for _ in range(7):
        value = {str(i): value for i in range(100)}
    return dump({"v_template": value})


HOSTILE = {
    "os.system": lambda: dump(Call(os.system, touch_command())),
    "posix.system by another name": lambda: dump(Call(os.system, touch_command())).replace(
        b"cposix", b"cos"
    ),
    "subprocess.Popen": lambda: dump(Call(subprocess.Popen, ("touch", CANARY))),
    "builtins.eval": lambda: dump(Call(eval, "__import__('os').mkdir('canary')")),
    "builtins.exec": lambda: dump(Call(exec, "__import__('os').mkdir('canary')")),
    "builtins.getattr": lambda: dump(Call(getattr, "text", "title")),
    "builtins.open": lambda: dump(Call(open, CANARY, "w")),
    "nested reduce": lambda: dump({"v_template": [{"deep": Call(os.system, touch_command())}]}),
    "state of an array": lambda: dump(
        {"v_template": np.array([Call(os.system, touch_command())], dtype=object)}
    ),
    "numpy.load": lambda: dump(Call(np.load, CANARY)),
    "numpy's ctypes": lambda: b"cnumpy.ctypeslib\nload_library\n(S'canary'\nS'.'\ntR.",
    "pickle in a pickle": lambda: dump(Call(pickle.loads, dump(Call(os.system, touch_command())))),
    "INST": instance_opcode,
    "STACK_GLOBAL": stack_global,
    "dotted name": dotted_name,
    "EXT1": extension,
    "PERSID": persistent_id,
    "long claim": long_claim,
    "huge memo": huge_memo,
    "huge array": huge_array,
    "append to a record": append_to_record,
    "deep nesting": deep_nesting,
    "columns that wrap around": wrapping_columns,
    "patched function": patched_function,
    "shared dictionaries": shared_dictionaries,
    "shared lists": lambda: dump({"v_template": [[[0.0] * 1000] * 1000] * 1000}),
    "unknown escape": lambda: b"S'\\u'\n.",
    "empty": lambda: b"",
    "no pickle": lambda: b"\x93NUMPY or what",
    "truncated": lambda: dump({"v_template": np.zeros((5023, 3))})[:40_000],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_run_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(HOSTILE[kind]())
    with pytest.raises(ValueError, match=r"refused|no FLAME model") as caught:
        read_flame(path)
    assert "flame2023.pkl" in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["flame2023.pkl"]


def test_a_known_function_cannot_be_changed():
    with pytest.raises(ValueError, match="refused"):
        load_records(patched_function(), "here")
    assert not hasattr(EncodeLatin(), "__dict__")
    with pytest.raises(TypeError):
        EncodeLatin()("text")


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "nested reduce", "INST"])
def test_the_hostile_pickles_would_work(kind, tmp_path, monkeypatch):
    """Otherwise the test above proves nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE[kind]())  # noqa: S301
    assert (tmp_path / CANARY).exists()


def replaced(**records):
    arrays = fake_arrays()
    return {**arrays, **records}


def test_values_that_are_no_arrays_are_refused(tmp_path):
    path = tmp_path / "flame2023.pkl"
    with fake_chumpy() as library:
        cases = {
            "chumpy.ch.Sum, which is no plain array": library.Sum(x=np.zeros(3)),
            "lacks x": library.Ch(y=1),
            "elements that an array does not have": library.Select(
                a=np.zeros(3), idxs=np.array([3])
            ),
            "type list where an array belongs": [1.0, 2.0],
            "of type 'M8'": np.zeros(3, "M8[s]"),
            "of type 'U1'": np.array(["a", "b"]),
            "not of numbers": np.array([{}, {}], dtype=object),
        }
        for message, value in cases.items():
            path.write_bytes(dump(replaced(v_template=value)))
            with pytest.raises(ValueError, match=message):
                read_flame(path)
        deep = np.zeros(3)
        for _ in range(20):
            deep = library.Ch(x=deep)
        path.write_bytes(dump(replaced(v_template=deep)))
        with pytest.raises(ValueError, match="levels deep"):
            read_flame(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("indptr", np.zeros(3, np.int32), "columns do not fit"),
        ("indptr", np.array([0, 2, 1]), "columns do not fit"),
        ("indptr", np.array([0.0, 1.0, 2.0]), "`indptr` in it must be a row"),
        ("indptr", 3, "type int where an array belongs"),
        ("indices", np.array([0, 5]), "rows out of range"),
        ("indices", np.array([0, -1]), "rows out of range"),
        ("indices", np.array([0]), "columns do not fit"),
        ("indices", np.zeros(2), "`indices` in it must be a row"),
        ("indices", [0, 1], "type list where an array belongs"),
        ("_shape", (10**6, 10**6), "sparse matrix of shape"),
        ("_shape", ("a", 2), "sparse matrix of shape"),
        ("_shape", (2,), "sparse matrix of shape"),
        ("data", np.zeros(3), "columns do not fit"),
        ("data", np.zeros((2, 2)), "`data` in it must be a row"),
        ("data", 3, "type int where an array belongs"),
    ],
)
def test_sparse_matrices_are_checked(field, value, message):
    record = load_records(dump(scipy.sparse.csc_matrix(np.eye(2))), "here")
    np.testing.assert_array_equal(decode_array(record), np.eye(2))
    record.state[field] = value
    with pytest.raises(ValueError, match=message):
        decode_array(record)


@pytest.mark.parametrize("name", ["f1", "O8", "V4", "S3", "f16", 3])
def test_types_that_are_no_numbers_are_refused(name):
    record = load_records(dump(np.zeros(3)), "here")
    record.state[2].args = (name, False, True)
    with pytest.raises(ValueError, match="not of numbers"):
        decode_array(record)


@pytest.mark.parametrize("shape", ["x", (2, "x"), (-1,), (5,), [3]])
def test_shapes_must_fit(shape):
    record = load_records(dump(np.zeros(3)), "here")
    record.state = (1, shape, *record.state[2:])
    with pytest.raises(ValueError, match=r"array (of|without a) shape"):
        decode_array(record)
    with fake_chumpy() as library:
        places = {"idxs": np.arange(3), "preferred_shape": shape}
        record = load_records(dump(library.Select(a=np.zeros(4), **places)), "here")
    with pytest.raises(ValueError, match="selects 3 elements in the shape"):
        decode_array(record)


def test_an_array_of_objects_may_hold_one_dictionary():
    value = np.array({"a": np.arange(3)}, dtype=object)
    content = unwrap_dictionary(load_records(dump(value), "here"))
    np.testing.assert_array_equal(decode_array(content["a"]), [0, 1, 2])
    with pytest.raises(ValueError, match="where a dictionary belongs"):
        unwrap_dictionary(load_records(dump(np.array([{}, {}], dtype=object)), "here"))


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", ">u2", "|b1", "|u1", "<f2"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_survive_in_every_type_and_order(dtype, protocol):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for layout in (array, np.asfortranarray(array), array[0, 0, 0]):
        decoded = decode_array(load_records(dump(layout, protocol), "here"))
        np.testing.assert_array_equal(decoded, layout)


OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=6), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(pieces):
    data = b"\x80\x02" + b"".join(pieces)
    try:
        decode_array(load_records(data, "noise"))
    except ValueError as error:
        assert str(error)


BENT = dump(
    {"a": np.arange(6.0), "b": np.float32(2), "c": scipy.sparse.csc_matrix(np.eye(3)), "d": [1]}
)


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=600, deadline=None)
def test_a_bent_byte_is_read_or_refused(place, value):
    data = bytearray(BENT)
    data[place % len(data)] = value
    try:
        content = unwrap_dictionary(load_records(bytes(data), "bent"))
        for entry in content.values():
            decode_array(entry)
    except ValueError as error:
        assert str(error)


def test_a_zip_bomb_of_arrays_is_refused(tmp_path):
    """An .npz whose header promises more than the archive holds."""
    path = tmp_path / "flame2023.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v_template.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"cannot be read as .npz"):
        read_flame(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_UNPACKED_SIZE", 2**20)
    path = tmp_path / "flame2023.npz"
    np.savez_compressed(path, v_template=np.zeros((2**18, 3)))
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="unpacks to"):
        read_flame(path)
