"""Files: what is read is what was saved, hostile files are refused with an error, and a run goes on from one to equal bits."""

import collections
import copy
import io
import json
import os
import pickle
import pickletools
import random
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spool
from spool import data, nn, optim
from spool import safetensors as stf

TENSORS = {
    "matrix": lambda: spool.tensor([[1.5, -0.0], [float("nan"), float("inf")]]),
    "double": lambda: spool.randn(3, dtype=spool.float64),
    "int": lambda: spool.tensor([2**62, -1]),
    "bool": lambda: spool.tensor([True, False]),
    "number": lambda: spool.tensor(3.5),
    "nothing": lambda: spool.zeros(0, 3),
    "transposed": lambda: spool.randn(3, 4).T,
    "part": lambda: spool.randn(6)[1::2],
    "expanded": lambda: spool.randn(1).expand(4),
}


def roundtrip(obj, **kwargs):
    file = io.BytesIO()
    spool.save(obj, file)
    file.seek(0)
    return spool.load(file, **kwargs)


def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape and type(a) is type(b)
    assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    assert a.requires_grad == b.requires_grad


# ---- save and load


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(name, tmp_path):
    t = TENSORS[name]()
    same(roundtrip(t), t)
    path = tmp_path / "t.spool"
    spool.save(t, path)
    same(spool.load(str(path), "cpu"), t)
    same(spool.safetensors.load(stf.save({name: t}))[name], t)
    assert os.listdir(tmp_path) == ["t.spool"]


def test_containers():
    value = {
        "list": [1, 2.5, None, True, "text", b"bytes", 10**30, 1j],
        "tuple": (spool.ones(2), {"set": {1, 2}, "frozen": frozenset({3})}),
        "ordered": collections.OrderedDict(a=1),
        "counter": collections.Counter("aab"),
        "dtype": spool.float64,
        "size": spool.Size((1, 2)),
        "device": spool.ones(1).device,
        3: slice(1, None, 2),
    }
    got = roundtrip(value)
    same(got["tuple"][0], value["tuple"][0])
    value["tuple"], got["tuple"] = value["tuple"][1], got["tuple"][1]
    assert got == value and type(got["ordered"]) is collections.OrderedDict


def test_identity_and_shared_memory():
    x = spool.randn(3)
    p = nn.Parameter(x)
    ring = {"a": x, "again": x, "alias": x.detach(), "p": p, "row": x[1:]}
    ring["self"] = ring
    got = roundtrip(ring)
    assert got["a"] is got["again"] and got["self"] is got and got["alias"] is not got["a"]
    got["a"].add_(1.0)
    same(got["alias"], x + 1)
    same(got["p"].detach(), x + 1)
    same(got["row"], x[1:])  # another geometry: memory of its own
    assert type(got["p"]) is nn.Parameter and got["p"].requires_grad


def test_attributes_of_tensors():
    x = spool.ones(2)
    x.name, x.other = "x", [spool.zeros(1)]
    got = roundtrip(x)
    assert got.name == "x" and got.other[0].tolist() == [0.0]


def test_saving_leaves_tensors_as_they_are():
    x = spool.randn(300, 300)
    spool.save(x, io.BytesIO())
    before = spool.launch.stats()["inline_runs"]
    assert (x @ x).shape == (300, 300) and before >= 0
    assert not x.requires_grad and x.is_contiguous()


class Custom:
    def __init__(self):
        self.x = spool.ones(2)


def test_other_classes_take_a_decision():
    value = Custom()
    with pytest.raises(spool.FormatError, match="weights_only=True does not admit"):
        roundtrip(value)
    with pytest.raises(spool.FormatError, match="Custom, which weights_only=True does not admit"):
        roundtrip(Custom)
    assert roundtrip(value, weights_only=False).x.tolist() == [1, 1]
    spool.serialization.add_safe_globals([Custom])
    try:
        assert roundtrip(value).x.tolist() == [1, 1]
        assert spool.serialization.get_safe_globals() == [Custom]
    finally:
        spool.serialization.clear_safe_globals()
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    other = roundtrip(net, weights_only=False)
    x = spool.randn(4, 2)
    assert other(x).tolist() == net(x).tolist()


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "a"
    spool.save(1, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        spool.save([spool.ones(3), lambda: None], path)
    assert spool.load(path) == 1 and os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileNotFoundError):
        spool.load(tmp_path / "b")
    with pytest.raises(NotImplementedError):
        spool.load(path, "cuda")


# ---- hostile files


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/spool-test-evil",)


def archive(pickled, entries=(), version=b"spool/1", compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as z:
        z.writestr("version", version)
        z.writestr("data.pkl", pickled)
        for name, content in entries:
            z.writestr(name, content)
    return file.getvalue()


class Described(pickle.Pickler):
    """Writes tuples that begin with 'pid' as tensors' descriptions."""

    def persistent_id(self, value):
        return value[1:] if isinstance(value, tuple) and value[:1] == ("pid",) else None


def described(*pid):
    file = io.BytesIO()
    Described(file, 4).dump(("pid", *pid))
    return file.getvalue()


GOOD = (0, 0, spool.Tensor, "float32", (2,), False, None)


def changed(**places):
    pid = list(GOOD)
    for place, value in places.items():
        pid[int(place[1:])] = value
    return archive(described(*pid), [("tensors/0", b"\0" * 8)])


class Setter:
    """Sets an attribute of a class that is admitted."""

    def dump(self):
        return (
            b"\x80\x04\x8c\x0bcollections\x8c\x07Counter\x93N}\x8c\x06update\x8c\x04gone\x73\x86b."
        )


HOSTILE = {
    "nothing": b"",
    "text": b"hello",
    "pickle": pickle.dumps(spool.ones(2)),
    "code": archive(pickle.dumps(Evil(), 4)),
    "code of an old protocol": archive(pickle.dumps(Evil(), 0)),
    "builtins": archive(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
    "dotted name": archive(b"\x80\x04\x8c\x0bcollections\x8c\x0eabc.sys.modules\x93."),
    "memo without end": archive(b"\x80\x04Nr\xff\xff\xff\xff."),
    "a class' attribute": archive(Setter().dump()),
    "cut pickle": archive(pickle.dumps([1] * 10, 4)[:-3]),
    "compressed": archive(pickle.dumps(1, 4), compression=zipfile.ZIP_DEFLATED),
    "other version": archive(pickle.dumps(1, 4), version=b"spool/99"),
    "no pickle": archive(b""),
    "no entry": archive(described(*GOOD)),
    "short entry": archive(described(*GOOD), [("tensors/0", b"\0" * 7)]),
    "long entry": archive(described(*GOOD), [("tensors/0", b"\0" * 9)]),
    "short description": archive(described(*GOOD[:-1]), [("tensors/0", b"\0" * 8)]),
    "negative size": changed(p4=(-2,)),
    "large size": changed(p4=(2**62, 2**62)),
    "many dimensions": changed(p4=(1,) * 100),
    "text for a size": changed(p4="ab"),
    "dtype": changed(p3="object"),
    "name for a dtype": changed(p3="Tensor"),
    "class": changed(p2=set),
    "number for a class": changed(p2=3),
    "entry's path": changed(p1="../version"),
    "gradients of integers": archive(
        described(0, 0, spool.Tensor, "int64", (1,), True, None), [("tensors/0", b"\0" * 8)]
    ),
    "bools of 2": archive(
        described(0, 0, spool.Tensor, "bool", (2,), False, None), [("tensors/0", b"\2\0")]
    ),
    "attributes": changed(p6=3),
    "two shapes of one place": archive(
        pickle.dumps(0, 4)[:-1] + described(*GOOD)[2:], [("tensors/0", b"\0" * 8)]
    ),
}


@pytest.mark.parametrize("name", [n for n in HOSTILE if n != "two shapes of one place"])
def test_hostile_files(name):
    with pytest.raises(spool.FormatError) as caught:
        spool.load(io.BytesIO(HOSTILE[name]))
    assert str(caught.value)
    assert not os.path.exists("/tmp/spool-test-evil")
    assert collections.Counter("a") == {"a": 1}


def test_two_shapes_of_one_place():
    file = io.BytesIO()
    other = ("pid", 1, 0, spool.Tensor, "float32", (1,), False, None)
    Described(file, 4).dump([("pid", *GOOD), other])
    with pytest.raises(spool.FormatError, match="differ"):
        spool.load(io.BytesIO(archive(file.getvalue(), [("tensors/0", b"\0" * 8)])))


def saved():
    file = io.BytesIO()
    value = {
        "w": spool.arange(6).float().reshape(2, 3),
        "p": nn.Parameter(spool.ones(2)),
        "n": [1, "a"],
    }
    spool.save(value, file)
    return file.getvalue()


def survives(read, content):
    """Reads, or refuses with an error of ours."""
    try:
        read(content)
    except (spool.SpoolError, MemoryError):
        pass


def test_broken_bytes():
    """Every byte of a file flipped somehow, and every length."""
    content, rng = saved(), random.Random(0)
    assert spool.load(io.BytesIO(content))["n"] == [1, "a"]
    for i in range(len(content)):
        for _ in range(2):
            broken = bytearray(content)
            broken[i] = rng.randrange(256)
            survives(lambda c: spool.load(io.BytesIO(c)), bytes(broken))
        survives(lambda c: spool.load(io.BytesIO(c)), content[:i])


@given(st.binary(max_size=200))
def test_any_bytes(content):
    survives(lambda c: spool.load(io.BytesIO(c)), content)
    survives(lambda c: spool.load(io.BytesIO(archive(c))), content)
    survives(stf.load, content)


OPS = [o.code.encode("latin1") for o in pickletools.opcodes if o.proto <= 4]


@given(st.lists(st.one_of(st.sampled_from(OPS), st.binary(max_size=3)), max_size=40))
def test_any_pickle(parts):
    survives(lambda c: spool.load(io.BytesIO(archive(c))), b"\x80\x04" + b"".join(parts) + b".")


# ---- safetensors


def test_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {name: make() for name, make in TENSORS.items()}
    stf.save_file(tensors, path, {"made by": "a test", "é": "ü"})
    got = stf.load_file(path)
    assert set(got) == set(tensors)
    for name, t in tensors.items():
        same(got[name], t)
    assert stf.load_metadata(path) == {"made by": "a test", "é": "ü"}
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert stf.load(stf.save({})) == {}
    net = nn.Linear(3, 2)
    stf.save_file(net.state_dict(), path)
    other = nn.Linear(3, 2)
    other.load_state_dict(stf.load_file(path))
    assert other.weight.tolist() == net.weight.tolist()


def test_safetensors_layout():
    content = stf.save({"b": spool.tensor([True]), "a": spool.tensor([1.0, 2.0])}, {"k": "v"})
    (n,) = struct.unpack("<Q", content[:8])
    assert n % 8 == 0
    header = json.loads(content[8 : 8 + n])
    assert header == {
        "__metadata__": {"k": "v"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "BOOL", "shape": [1], "data_offsets": [8, 9]},
    }
    assert content[8 + n :] == struct.pack("<ff", 1.0, 2.0) + b"\1"


def packed(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "dtype, code, values, result",
    [
        ("F16", "<f2", [1.5, -2.0], [1.5, -2.0]),
        ("I8", "<i1", [-3, 4], [-3, 4]),
        ("U8", "<u1", [250, 4], [250, 4]),
        ("I16", "<i2", [-300, 4], [-300, 4]),
        ("U16", "<u2", [65535, 4], [65535, 4]),
        ("I32", "<i4", [-70000, 4], [-70000, 4]),
        ("U32", "<u4", [2**32 - 1, 4], [2**32 - 1, 4]),
        ("BF16", "<u2", [0x3FC0, 0xC000], [1.5, -2.0]),
    ],
)
def test_safetensors_widened(dtype, code, values, result):
    raw = np.array(values, code).tobytes()
    t = stf.load(packed({"x": entry(dtype, (2, 1), (0, len(raw)))}, raw))["x"]
    assert t.tolist() == [[r] for r in result]


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "no header"),
        (b"\0" * 7, "no header"),
        (struct.pack("<Q", 2**63), "header is said"),
        (struct.pack("<Q", 100) + b"{}", "header is said"),
        (packed(b"{"), "no JSON"),
        (packed(b"\xff\xff"), "no JSON"),
        (packed(b"[" * 100_000), "no JSON"),
        (packed([]), "no JSON object"),
        (packed(b'{"a": 1, "a": 2}'), "twice"),
        (packed({"x": 3}), "must have"),
        (packed({"x": {"dtype": "F32"}}), "must have"),
        (packed({"x": entry("F33")}, b"\0" * 8), "F33"),
        (packed({"x": entry("U64")}, b"\0" * 16), "U64"),
        (packed({"x": {**entry(), "dtype": ["F32"]}}, b"\0" * 8), "dtype"),
        (packed({"x": entry(shape=(-2,))}, b"\0" * 8), "shape"),
        (packed({"x": entry(shape=(2.0,))}, b"\0" * 8), "shape"),
        (packed({"x": entry(shape=(2**62, 2**62))}, b"\0" * 8), "bytes for shape"),
        (packed({"x": entry(shape=(True, 2))}, b"\0" * 8), "shape"),
        (packed({"x": entry(offsets=(0, 4))}, b"\0" * 4), "4 bytes for shape"),
        (packed({"x": entry(offsets=(8, 0))}, b"\0" * 8), "bytes for shape"),
        (packed({"x": entry(offsets=(0, 8, 9))}, b"\0" * 8), "data_offsets"),
        (packed({"x": entry(offsets=(4, 12))}, b"\0" * 12), "begins at byte 4"),
        (packed({"x": entry()}, b"\0" * 4), "take 8 bytes"),
        (packed({"x": entry()}, b"\0" * 9), "take 8 bytes"),
        (packed({"x": entry(), "y": entry()}, b"\0" * 16), "begins at byte 0"),
        (packed({"x": entry("F32", (1,) * 100, (0, 4))}, b"\0" * 4), "dimensions"),
        (packed({"x": entry("BOOL", (1,), (0, 1))}, b"\2"), "bool"),
        (packed({"__metadata__": {"a": 1}}), "__metadata__"),
        (packed({"__metadata__": 3}), "__metadata__"),
    ],
)
def test_hostile_safetensors(content, text):
    with pytest.raises(spool.FormatError) as caught:
        stf.load(content)
    assert text in str(caught.value)


def test_broken_safetensors():
    content, rng = (
        stf.save({"a": spool.ones(2, 2), "b": spool.tensor([1, 2])}, {"k": "v"}),
        random.Random(0),
    )
    for i in range(len(content)):
        for _ in range(4):
            broken = bytearray(content)
            broken[i] = rng.randrange(256)
            survives(stf.load, bytes(broken))
        survives(stf.load, content[:i])


@pytest.mark.parametrize(
    "tensors, error",
    [
        ([1], TypeError),
        ({"a": 1}, TypeError),
        ({3: spool.ones(1)}, ValueError),
        ({"__metadata__": spool.ones(1)}, ValueError),
    ],
)
def test_safetensors_refuses(tensors, error):
    with pytest.raises(error):
        stf.save(tensors)
    with pytest.raises(TypeError):
        stf.save({}, {"a": 1})


# ---- copies, random state, checkpoints


def test_copies():
    p = nn.Parameter(spool.ones(2))
    p.note = [1]
    q = copy.copy(p)
    assert type(q) is nn.Parameter and q.requires_grad and q.note is p.note and q is not p
    with spool.no_grad():
        q.add_(1.0)
    assert p.tolist() == [2.0, 2.0]
    assert copy.copy(p * 1).is_leaf


def test_random_state():
    spool.manual_seed(5)
    spool.rand(7)
    state = spool.get_rng_state()
    assert spool.initial_seed() == 5 and state.dtype == spool.int64 and state.shape == (2,)
    one = [spool.rand(3).tolist(), spool.randn(2).tolist()]
    spool.set_rng_state(roundtrip(state))
    assert [spool.rand(3).tolist(), spool.randn(2).tolist()] == one
    spool.manual_seed(-1)
    assert spool.initial_seed() == 2**64 - 1
    spool.set_rng_state(spool.get_rng_state())
    assert spool.initial_seed() == 2**64 - 1
    for bad in (spool.ones(2), spool.tensor([1, 2, 3])):
        with pytest.raises(spool.ShapeError):
            spool.set_rng_state(bad)
    with pytest.raises(TypeError):
        spool.set_rng_state(3)


class Run:
    """A training run: model, optimizer, schedule, shuffled data, and noise."""

    def __init__(self, step_of):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(24, 5)).astype(np.float32), rng.integers(0, 3, 24)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        self.opt = optim.Adam(self.net.parameters(), lr=0.01, amsgrad=True)
        self.rates = optim.lr_scheduler.CosineAnnealingLR(self.opt, 12)
        self.loader = data.DataLoader(data.TensorDataset(spool.tensor(x), spool.tensor(y)), 6, True)
        self.loss = nn.CrossEntropyLoss()
        self.step = step_of(self.one)

    def one(self, x, y):
        loss = self.loss(self.net(x + spool.randn(6, 5) * 0.1), y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad()
        return loss.detach()

    def epoch(self):
        losses = [self.step(x, y).item() for x, y in self.loader]
        self.rates.step()
        return losses

    def state(self):
        parts = {k: getattr(self, k).state_dict() for k in ("net", "opt", "rates")}
        return {**parts, "random": spool.get_rng_state()}

    def restore(self, state):
        for k in ("net", "opt", "rates"):
            getattr(self, k).load_state_dict(state[k])
        spool.set_rng_state(state["random"])


@pytest.mark.parametrize("step_of", [lambda f: f, spool.jit], ids=["eager", "jit"])
def test_a_run_goes_on_to_equal_bits(step_of, tmp_path):
    spool.manual_seed(9)
    run, path = Run(step_of), tmp_path / "checkpoint"
    [run.epoch() for _ in range(3)]
    spool.save(run.state(), path)
    wanted = [run.epoch() for _ in range(3)]
    spool.manual_seed(77)
    other = Run(step_of)
    other.epoch()
    other.restore(spool.load(path))
    assert [other.epoch() for _ in range(3)] == wanted
    for p, q in zip(run.net.parameters(), other.net.parameters()):
        same(p, q)
