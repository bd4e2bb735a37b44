"""spool.nn: the modules, initial values and utilities, compared with PyTorch's on the same state."""

import copy
import gc
import math
import pickle
import weakref

import numpy as np
import pytest

import spool
from spool import nn

torch = pytest.importorskip("torch")


def to_torch(x):
    return torch.tensor(x.detach().numpy())


def to_spool(x, **kwargs):
    return spool.tensor(x.detach().numpy(), **kwargs)


def twins(make):
    """The module of both libraries that `make(nn)` describes, with PyTorch's initial values."""
    theirs, ours = make(torch.nn), make(nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    loaded = ours.load_state_dict({k: to_spool(v) for k, v in theirs.state_dict().items()})
    assert loaded == ([], []) and str(loaded) == "<All keys matched successfully>"
    return ours, theirs


def assert_same(make, *inputs, rtol=1e-5, atol=1e-6):
    """Equal outputs, and equal gradients of parameters and inputs."""
    ours, theirs = twins(make)
    xs = [spool.tensor(x, requires_grad=x.dtype == np.float32) for x in inputs]
    ts = [torch.tensor(x, requires_grad=x.dtype == np.float32) for x in inputs]
    y, t = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(y.detach().numpy(), t.detach().numpy(), rtol, atol)
    assert tuple(y.shape) == tuple(t.shape)
    weight = np.random.default_rng(1).normal(size=tuple(t.shape)).astype(np.float32)
    (y * spool.tensor(weight)).sum().backward()
    (t * torch.tensor(weight)).sum().backward()
    for a, b in zip([*xs, *ours.parameters()], [*ts, *theirs.parameters()]):
        assert (a.grad is None) == (b.grad is None)
        if b.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol, atol)
    assert repr(ours) == repr(theirs)


def array(*shape):
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape).astype(np.float32)


# ---- layers

LAYERS = {
    "Linear": (lambda n: n.Linear(4, 3), array(5, 4)),
    "Linear without bias": (lambda n: n.Linear(4, 3, bias=False), array(2, 5, 4)),
    "Linear of a vector": (lambda n: n.Linear(4, 3), array(4)),
    "Linear of nothing": (lambda n: n.Linear(4, 3), array(0, 4)),
    "Identity": (lambda n: n.Identity(3, a=1), array(2, 3)),
    "Flatten": (lambda n: n.Flatten(), array(2, 3, 4)),
    "Flatten to the end": (lambda n: n.Flatten(0, -1), array(2, 3, 4)),
    "Flatten the middle": (lambda n: n.Flatten(1, 2), array(2, 3, 4, 2)),
    "Flatten nothing": (lambda n: n.Flatten(), array(0, 3, 4)),
    "Unflatten": (lambda n: n.Unflatten(1, (2, -1)), array(3, 6)),
    "ReLU": (lambda n: n.ReLU(), array(3, 4)),
    "Tanh": (lambda n: n.Tanh(), array(3, 4)),
    "LogSoftmax": (lambda n: n.LogSoftmax(dim=-1), array(3, 4)),
    "Sequential": (
        lambda n: n.Sequential(n.Linear(4, 8), n.Tanh(), n.Sequential(n.Linear(8, 3), n.ReLU())),
        array(5, 4),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, x = LAYERS[name]
    assert_same(make, x)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
def test_bilinear(lead):
    assert_same(lambda n: n.Bilinear(3, 4, 2), array(*lead, 3), array(*lead, 4))
    assert_same(lambda n: n.Bilinear(3, 4, 2, bias=False), array(*lead, 3), array(*lead, 4))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "NLLLoss"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 5, 4)])
def test_losses(loss, reduction, shape):
    target = np.random.default_rng(0).integers(0, 5, shape[:1] * (len(shape) > 1) + shape[2:])
    assert_same(lambda n: getattr(n, loss)(reduction=reduction), array(*shape), np.asarray(target))


DISTANCES = {
    "MSELoss": {},
    "L1Loss": {},
    "SmoothL1Loss": {"beta": 0.5},
    "SmoothL1Loss of 0": {"beta": 0.0},
    "HuberLoss": {"delta": 0.7},
}


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("shape", [(), (3, 4), (2, 0)])
def test_distances(name, reduction, shape):
    def make(n):
        return getattr(n, name.split()[0])(reduction=reduction, **DISTANCES[name])

    if 0 in shape and reduction == "mean":
        return assert_same_nan(make, array(*shape))
    same_place = array(*shape) + np.float32(2.0)
    assert_same(make, same_place, np.round(same_place * 2, 0) / np.float32(2))
    assert_same(make, same_place, same_place)


def assert_same_nan(make, x):
    assert math.isnan(make(nn)(spool.tensor(x), spool.tensor(x)).item())
    assert math.isnan(make(torch.nn)(torch.tensor(x), torch.tensor(x)).item())


@pytest.mark.parametrize("name", ["mse_loss", "smooth_l1_loss", "huber_loss"])
def test_distances_of_second_order(name):
    x, y = array(5) * 3, array(3, 5)[1]
    results = []
    for library, tensor in ((spool, spool.tensor), (torch, torch.tensor)):
        loss = getattr(library.nn.functional, name)
        a, b = tensor(x, requires_grad=True), tensor(y)
        (grad,) = library.autograd.grad(loss(a, b), a, create_graph=True)
        (second,) = library.autograd.grad((grad * grad).sum(), a)
        results.append([grad.tolist(), second.tolist()])
    np.testing.assert_allclose(results[0], results[1], 1e-5, 1e-7)


def test_distances_under_jit_and_vmap():
    x, y = spool.tensor(array(4, 3)), spool.tensor(array(3, 4)).T
    for loss in (nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(delta=0.3)):
        jitted = spool.jit(loss)
        for _ in range(3):
            assert jitted(x, y).tolist() == loss(x, y).tolist()
        rows = spool.func.vmap(loss)(x, y)
        np.testing.assert_allclose(rows.tolist(), [loss(x[i], y[i]).item() for i in range(4)], 1e-6)


def test_distances_warn_and_refuse():
    with pytest.warns(UserWarning, match="broadcast"):
        nn.MSELoss()(spool.ones(3, 1), spool.ones(3))
    with pytest.raises(spool.ShapeError), pytest.warns(UserWarning):
        nn.functional.l1_loss(spool.ones(3), spool.ones(4))
    for call in (
        lambda f, x: f.huber_loss(x, x, delta=0),
        lambda f, x: f.smooth_l1_loss(x, x, beta=-1),
        lambda f, x: f.mse_loss(x, x, reduction="max"),
    ):
        with pytest.raises(ValueError):
            call(nn.functional, spool.ones(2))


def test_relu_in_place():
    x = spool.tensor([-1.0, 2.0])
    layer = nn.ReLU(inplace=True)
    assert layer(x) is x and x.tolist() == [0.0, 2.0]
    assert repr(layer) == "ReLU(inplace=True)"


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: nn.Linear(4, 3)(spool.ones(2, 5)), spool.ShapeError, "linear"),
        (lambda: nn.Bilinear(3, 4, 2)(spool.ones(2, 3), spool.ones(2, 3)), spool.ShapeError, "4"),
        (lambda: nn.Bilinear(3, 4, 2)(spool.ones(2, 3), spool.ones(3, 4)), spool.ShapeError, "(*"),
        (lambda: nn.Bilinear(0, 4, 2), ValueError, "in1_features"),
        (lambda: nn.Flatten(2)(spool.ones(3, 4)), IndexError, "flatten"),
        (lambda: nn.Flatten(1, 0)(spool.ones(3, 4)), ValueError, "flatten"),
        (lambda: nn.Unflatten(1, (3, 2))(spool.ones(3, 4)), spool.ShapeError, "unflatten"),
        (lambda: nn.CrossEntropyLoss(reduction="max"), ValueError, "reduction"),
        (lambda: nn.Module()(1), NotImplementedError, "forward"),
        (lambda: nn.ModuleList([nn.ReLU()])[1], IndexError, "out of range"),
        (lambda: nn.ModuleList([1]), TypeError, "int"),
        (lambda: nn.ParameterList([1.0]), TypeError, "float"),
        (lambda: nn.Linear(2, 2).to(spool.int64), TypeError, "floating point"),
        (lambda: nn.Linear(2, 2).to("cuda"), NotImplementedError, "cpu"),
        (lambda: nn.Linear(2, 2).train(1), ValueError, "boolean"),
        (lambda: nn.Linear(2, 2).get_submodule("a.b"), AttributeError, "'a'"),
        (lambda: nn.Linear(2, 2).get_parameter("w"), AttributeError, "'w'"),
        (lambda: nn.Linear(2, 2).nothing, AttributeError, "nothing"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_traceback_ends_at_the_users_line():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
    with pytest.raises(spool.ShapeError) as caught:
        net(spool.ones(2, 4))
    assert all("spool/nn" not in str(entry.path) for entry in caught.traceback)


# ---- Module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.scale = nn.Parameter(spool.ones(3))
        self.register_buffer("count", spool.zeros(()))
        self.register_buffer("cache", spool.zeros(2), persistent=False)
        self.rest = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.shared = self.rest[0]

    def forward(self, x):
        x = self.first(x) * self.scale
        for layer in self.rest:
            x = layer(x).relu()
        return x


def test_names():
    net = Net()
    keys = ["scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias"]
    keys += ["rest.1.weight", "rest.1.bias"]
    assert [k for k, _ in net.named_parameters()] == keys
    assert len(list(net.parameters())) == 7
    assert [k for k, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [k for k, _ in net.named_parameters(prefix="net")][0] == "net.scale"
    assert len(list(net.named_parameters(remove_duplicate=False))) == 9
    assert [k for k, _ in net.named_buffers()] == ["count", "cache"]
    assert [k for k, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [k for k, _ in net.named_children()] == ["first", "rest", "shared"]
    assert "cache" not in net.state_dict() and "count" in net.state_dict()
    assert net.get_parameter("rest.1.bias") is net.rest[1].bias
    assert net.get_buffer("count") is net.count and net.get_submodule("") is net
    assert {"first", "scale", "count", "forward"} <= set(dir(net))


def test_attributes():
    net = Net()
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'scale'"):
        net.scale = spool.ones(3)
    with pytest.raises(TypeError, match="buffer 'count'"):
        net.count = 3
    with pytest.raises(TypeError, match="child module 'first'"):
        net.first = 3
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("first", spool.ones(1))
    for name in ("", "a.b"):
        with pytest.raises(KeyError):
            net.register_buffer(name, spool.ones(1))
        with pytest.raises(KeyError):
            net.add_module(name, nn.ReLU())
    net.scale = None
    assert net.scale is None and "scale" not in dict(net.named_parameters())
    net.scale = nn.Parameter(spool.ones(3))
    net.count = spool.ones(())
    assert net.get_buffer("count").item() == 1
    del net.scale
    assert not hasattr(net, "scale")
    with pytest.raises(AttributeError):
        del net.scale
    net.first = nn.Parameter(spool.ones(2))
    assert "first" not in net._modules and "first" in net._parameters


def test_a_module_needs_its_init():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

    with pytest.raises(AttributeError, match="before Module.__init__"):
        Early()


def test_modes_and_apply():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train().rest[1].training
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net" and seen.count("Linear") >= 3
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_zero_grad():
    net = Net()
    net(spool.ones(2, 4)).sum().backward()
    grads = [p.grad for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).to(spool.float32).mean().item() == 1 for p in net.parameters())
    assert len(grads) == 7
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_to_converts_in_place():
    net = Net()
    before = list(net.parameters())
    net(spool.ones(2, 4)).sum().backward()
    values = [p.detach().numpy().copy() for p in before]
    net.register_buffer("steps", spool.tensor(3))
    assert net.double() is net
    assert [id(p) for p in net.parameters()] == [id(p) for p in before]
    assert all(p.dtype == p.grad.dtype == spool.float64 for p in net.parameters())
    assert net.count.dtype == spool.float64 and net.steps.dtype == spool.int64
    assert all((v == p.detach().numpy()).all() for v, p in zip(values, before))
    net.zero_grad()
    net(spool.ones(2, 4, dtype=spool.float64)).sum().backward()
    assert net.scale.grad.dtype == spool.float64
    assert net.to("cpu").scale.dtype == spool.float64
    assert net.to(spool.float32).scale.dtype == net.scale.grad.dtype == spool.float32
    assert net.to(dtype=spool.float64).float().scale.dtype == spool.float32
    assert net.to(spool.ones(1, dtype=spool.float64)).scale.dtype == spool.float64
    assert net.to("cpu", spool.float32).cpu().scale.dtype == spool.float32


def test_state_dict():
    a, b = Net(), Net()
    assert b.load_state_dict(a.state_dict()) == ([], [])
    assert all(
        (x.detach() == y.detach()).numpy().all() for x, y in zip(a.parameters(), b.parameters())
    )
    state = a.state_dict()
    assert not state["scale"].requires_grad and a.state_dict(keep_vars=True)["scale"] is a.scale
    with spool.no_grad():
        state["scale"].add_(1.0)
    assert a.scale[0].item() == 2.0  # shared memory
    assert list(a.state_dict(prefix="net."))[0] == "net.scale"


def test_load_state_dict_errors():
    net = Net()
    before = [p.detach().clone() for p in net.parameters()]
    state = {k: v + 1 for k, v in net.state_dict().items()}
    state["rest.0.weight"] = spool.ones(2, 3)
    state["extra"] = spool.ones(1)
    state["first.bias"] = 3
    del state["scale"]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    for part in (
        "Error(s) in loading state_dict for Net",
        'Missing key(s) in state_dict: "scale"',
        'Unexpected key(s) in state_dict: "extra"',
        "size mismatch for rest.0.weight: copying a param with shape spool.Size([2, 3])",
        '"first.bias": expected a Tensor, got int',
    ):
        assert part in text
    assert all((a == b).numpy().all() for a, b in zip(before, net.parameters()))
    state["rest.0.weight"], state["first.bias"] = spool.ones(3, 3), spool.ones(3)
    state["shared.weight"] = spool.ones(3, 3)
    keys = net.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["scale"] and keys.unexpected_keys == ["extra"]
    with pytest.raises(TypeError, match="dict"):
        net.load_state_dict(3)


def test_load_state_dict_converts_or_assigns():
    net = nn.Linear(2, 2)
    weight, state = net.weight, {k: v.double() + 1 for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    assert net.weight is weight and weight.dtype == spool.float32
    net.weight.requires_grad_(False)
    net.load_state_dict(state, assign=True)
    assert net.weight is not weight and net.weight.dtype == spool.float64
    assert not net.weight.requires_grad and net.bias.requires_grad
    assert net.weight.data_ptr() == state["weight"].data_ptr()


def test_extra_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 0

        def get_extra_state(self):
            return {"n": self.n}

        def set_extra_state(self, state):
            self.n = state["n"]

    a, b = nn.Sequential(Counter()), nn.Sequential(Counter())
    a[0].n = 5
    assert list(a.state_dict()) == ["0._extra_state"]
    b.load_state_dict(a.state_dict())
    assert b[0].n == 5
    with pytest.raises(RuntimeError, match="_extra_state"):
        b.load_state_dict({})


def test_copy_and_pickle():
    net = Net()
    net(spool.ones(2, 4)).sum().backward()
    x = spool.randn(2, 4)
    y = net(x).detach().numpy()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (other(x).detach().numpy() == y).all()
        assert type(other.scale) is nn.Parameter and other.scale.requires_grad
        assert other.shared is other.rest[0]
        with spool.no_grad():
            other.scale.add_(1.0)
        assert (net(x).detach().numpy() == y).all()
    shallow = copy.copy(net)
    assert shallow.scale is net.scale


def test_modules_are_freed():
    net = Net()
    net.register_forward_hook(lambda *a: None)
    gone = weakref.ref(net)
    net(spool.ones(2, 4)).sum().backward()
    del net
    gc.collect()
    assert gone() is None


def test_repr():
    def make(n):
        inner = n.Sequential(n.Linear(1, 2), n.ReLU())
        parts = n.ModuleDict({"a": n.ReLU(), "b": n.ModuleList([n.Linear(2, 2)] * 3 + [inner])})
        return n.Sequential(parts, n.ModuleList(), n.ModuleDict(), n.Sequential())

    assert repr(make(nn)) == repr(make(torch.nn))
    assert (
        repr(nn.Parameter(spool.ones(1)))
        == "Parameter containing:\ntensor([1.], requires_grad=True)"
    )
    assert (
        repr(nn.ParameterList([spool.ones(2, 3)])).splitlines()[1].strip().startswith("(0): Param")
    )


# ---- containers


def test_sequential_is_a_list():
    for n in (nn, torch.nn):
        layers = [n.Linear(2, 2), n.ReLU(), n.Linear(2, 2)]
        s = n.Sequential(*layers)
        assert len(s) == 3 and list(s) == layers and s[-1] is layers[2]
        assert list(s[1:]) == layers[1:] and isinstance(s[:2], n.Sequential)
        s.append(layers[1]).insert(0, layers[1])
        assert list(s) == [layers[1], *layers, layers[1]]
        assert s.pop(0) is layers[1] and len(s) == 4
        del s[1]
        assert list(s) == [layers[0], layers[2], layers[1]]
        s[0] = layers[1]
        assert s[0] is layers[1] and list(dict(s.named_children())) == ["0", "1"]
        assert len(s + s) == 6 and len(s.extend(layers)) == 6
        del s[1:3]
        assert len(s) == 4
    named = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    assert list(dict(named.named_children())) == ["a", "b"] and named.a is named[0]


def test_module_list_and_dict():
    for n in (nn, torch.nn):
        layers = [n.Linear(2, 2), n.ReLU()]
        m = n.ModuleList(layers)
        m += [n.Tanh()]
        m.append(n.ReLU()).insert(1, n.Tanh())
        assert len(m) == 5 and m[-2] is m[3] and len(m[1:3]) == 2 and m[0] is layers[0]
        del m[0]
        assert len(list(m.parameters())) == 0 and len(m + m) == 8
        d = n.ModuleDict({"a": layers[0]})
        d["b"] = layers[1]
        d.update([("c", n.Tanh())])
        assert list(d) == ["a", "b", "c"] and "a" in d and d.pop("b") is layers[1]
        assert len(d) == 2 and [k for k, _ in d.items()] == list(d.keys())
        d.clear()
        assert not list(d.values())


def test_parameter_containers():
    p = nn.ParameterList([spool.ones(2), nn.Parameter(spool.zeros(3))])
    p.append(spool.ones(1))
    p[0] = spool.zeros(2)
    p += [spool.ones(4)]
    assert len(p) == 4 and p[-1].shape == (4,) and len(p[1:]) == 3
    assert [k for k, _ in p.named_parameters()] == ["0", "1", "2", "3"]
    d = nn.ParameterDict({"a": spool.ones(2)})
    d["b"] = spool.ones(1)
    assert list(d) == ["a", "b"] and "a" in d and isinstance(d["a"], nn.Parameter)
    del d["a"]
    assert len(d) == 1 and dict(d.items())["b"] is d["b"]


# ---- hooks


def test_forward_hooks():
    layer = nn.Linear(2, 2)
    x, seen = spool.ones(1, 2), []
    plain = layer(x).tolist()
    with layer.register_forward_pre_hook(lambda m, args: seen.append("pre")):
        after = layer.register_forward_hook(lambda m, args, out: seen.append("after"))
        first = layer.register_forward_hook(lambda m, a, o: seen.append("first"), prepend=True)
        layer(x)
    assert seen == ["pre", "first", "after"]
    after.remove()
    after.remove()
    first.remove()
    assert layer(x).tolist() == plain and len(seen) == 3
    with layer.register_forward_pre_hook(lambda m, args: args[0] * 2):
        assert layer(x).tolist() == layer.forward(x * 2).tolist()
    with layer.register_forward_hook(lambda m, args, out: out * 2):
        np.testing.assert_allclose(layer(x).tolist(), 2 * np.array(plain))
    with layer.register_forward_pre_hook(lambda m, a, k: ((), {"input": a[0]}), with_kwargs=True):
        assert layer(x).tolist() == plain
    with layer.register_forward_hook(lambda m, a, k, o: list(k), with_kwargs=True):
        assert layer(input=x) == ["input"]
    with pytest.raises(TypeError, match="callable"):
        layer.register_forward_hook(3)


def test_always_called_hooks():
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda m, a, o: seen.append(o), always_call=True)
    with pytest.raises(spool.ShapeError):
        layer(spool.ones(3))
    assert seen == [None]


def test_backward_hooks():
    def run(n, tensor):
        net = n.Sequential(n.Linear(3, 2), n.Tanh())
        seen = []
        with_state = {"0.weight": tensor(array(2, 3)), "0.bias": tensor(array(2))}
        net.load_state_dict(with_state)
        net.register_full_backward_pre_hook(lambda m, go: (go[0] * 2,))
        net.register_full_backward_hook(lambda m, gi, go: seen.extend([gi[0], go[0]]))
        net[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
        x = tensor(array(4, 3))
        x.requires_grad_(True)
        (net(x) * tensor(array(4, 2))).sum().backward()
        seen += [x.grad, net[0].weight.grad]
        return [np.asarray(s.tolist()) for s in seen]

    for ours, theirs in zip(run(nn, spool.tensor), run(torch.nn, torch.tensor)):
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)


def test_backward_hook_without_differentiable_input():
    layer, seen = nn.Linear(2, 2), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
    layer(spool.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0, 1.0]])]


def test_backward_hook_of_two_inputs():
    layer, seen = nn.Bilinear(2, 3, 1), []
    handle = layer.register_full_backward_hook(lambda m, gi, go: seen.append([g.shape for g in gi]))
    x, y = (spool.ones(1, n, requires_grad=True) for n in (2, 3))
    layer(x, y).sum().backward()
    assert seen == [[(1, 2), (1, 3)]]
    handle.remove()
    layer.register_full_backward_hook(lambda m, gi, go: gi)
    with pytest.raises(NotImplementedError, match="here 2 have"):
        layer(x, y).sum().backward()


# ---- under jit and transforms


def train(net, x, y, steps, step_of):
    loss_of = nn.CrossEntropyLoss()

    def step(x, y):
        loss = loss_of(net(x), y)
        loss.backward()
        with spool.no_grad():
            for p in net.parameters():
                p.sub_(p.grad, alpha=0.1)
        net.zero_grad()
        return loss.detach()

    step = step_of(step)
    losses = [step(x + i, y).item() for i in range(steps)]
    return losses, step


def make_net():
    spool.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def test_training_under_jit_has_equal_bits_and_one_plan():
    x, y = spool.tensor(array(6, 2, 4)), spool.tensor([0, 1, 2, 0, 1, 2])
    eager, _ = train(make_net(), x, y, 8, lambda f: f)
    jitted, step = train(make_net(), x, y, 8, spool.jit)
    assert eager == jitted
    report = spool.explain(step, quiet=True)
    assert report.breaks == 0 and report.compiled_ops == report.ops > 0, report.text
    assert report.graphs <= 2, report.text  # the first backward makes the gradients


def test_clipping_is_part_of_the_plan():
    def run(step_of):
        net, x = make_net(), spool.tensor(array(6, 2, 4))

        def step(x):
            net(x).sum().backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            nn.utils.clip_grad_value_(net.parameters(), 0.1)
            result = [norm] + [p.grad for p in net.parameters()]
            net.zero_grad()
            return result

        step = step_of(step)
        return [[t.tolist() for t in step(x + i)] for i in range(5)], step

    eager, _ = run(lambda f: f)
    jitted, step = run(spool.jit)
    assert eager == jitted
    report = spool.explain(step, quiet=True)
    assert report.breaks == 0 and report.compiled_ops == report.ops, report.text


def test_parameters_are_inputs_of_a_jitted_forward():
    net = make_net()
    for jitted in (spool.jit(net), spool.jit(net.forward), spool.jit(lambda x: net(x))):
        x = spool.tensor(array(6, 2, 4))
        for i in range(5):
            with spool.no_grad():
                net[1].weight.add_(0.1)
                net[3].bias.copy_(spool.randn(3))
            assert jitted(x + i).tolist() == net(x + i).tolist()
        report = spool.explain(jitted, quiet=True)
        assert report.graphs == 1 and report.rebuilds == 0, report.text
    assert not hasattr(spool.jit(net), "_parameters")


def test_a_new_parameter_object_is_seen():
    net = make_net()
    jitted, x = spool.jit(net), spool.tensor(array(6, 2, 4))
    for _ in range(4):
        net[1].weight = nn.Parameter(spool.randn(16, 8))
        net[3].load_state_dict({"weight": spool.randn(3, 16), "bias": spool.randn(3)}, assign=True)
        assert jitted(x).tolist() == net(x).tolist()


def test_modules_in_transforms():
    net = make_net()
    x = spool.tensor(array(5, 2, 4))

    def one(v):
        return net(v.unsqueeze(0))[0].sum()

    grads = spool.func.vmap(spool.func.grad(one))(x)
    leaf = x.detach().requires_grad_()
    net(leaf).sum().backward()
    np.testing.assert_allclose(grads.detach().numpy(), leaf.grad.numpy(), 1e-5, 1e-6)


# ---- Parameter


def test_parameter():
    t = spool.ones(2)
    p = nn.Parameter(t)
    assert isinstance(p, spool.Tensor) and p.is_leaf and p.requires_grad and not t.requires_grad
    assert p.data_ptr() == t.data_ptr() and type(p * 1) is spool.Tensor
    assert nn.Parameter().shape == (0,) and not nn.Parameter(t, requires_grad=False).requires_grad
    assert nn.Parameter([1.0, 2.0]).tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError):
        nn.Parameter(spool.tensor([1, 2]))
    assert nn.Parameter(spool.tensor([1, 2]), requires_grad=False).dtype == spool.int64


# ---- initial values


@pytest.mark.parametrize("dtype", [spool.float32, spool.float64])
def test_init_moments(dtype):
    def draw(function, *args, shape=(400, 300), **kwargs):
        t = spool.empty(*shape, dtype=dtype)
        assert getattr(nn.init, function)(t, *args, **kwargs) is t
        return t.numpy().astype(np.float64)

    v = draw("uniform_", -1.0, 3.0)
    assert abs(v.mean() - 1) < 0.02 and v.min() >= -1 and v.max() < 3.0001
    v = draw("normal_", 2.0, 3.0)
    assert abs(v.mean() - 2) < 0.05 and abs(v.std() - 3) < 0.05
    v = draw("xavier_uniform_", 2.0)
    assert abs(np.abs(v).max() - 2 * math.sqrt(6 / 700)) < 1e-3
    assert abs(draw("xavier_normal_").std() - math.sqrt(2 / 700)) < 1e-3
    v = draw("kaiming_uniform_", a=math.sqrt(5))
    assert abs(np.abs(v).max() - 1 / math.sqrt(300)) < 1e-3
    v = draw("kaiming_normal_", mode="fan_out", nonlinearity="relu")
    assert abs(v.std() - math.sqrt(2 / 400)) < 1e-3
    v = draw("sparse_", 0.25)
    assert ((v == 0).sum(0) == 100).all() and abs(v[v != 0].std() - 0.01) < 1e-3
    for shape in ((5, 9), (9, 5), (6, 2, 4)):
        v = draw("orthogonal_", 2.0, shape=shape).reshape(shape[0], -1)
        product = v @ v.T if v.shape[0] < v.shape[1] else v.T @ v
        np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize("a, b", [(-2.0, 2.0), (-1.0, 0.5), (3.0, 5.0), (-9.0, -8.0), (8.0, 9.0)])
def test_trunc_normal(a, b):
    import scipy.stats

    v = nn.init.trunc_normal_(spool.empty(20000, dtype=spool.float64), 0.5, 1.5, a, b).numpy()
    assert v.min() >= a and v.max() <= b
    bounds = (a - 0.5) / 1.5, (b - 0.5) / 1.5
    assert scipy.stats.kstest(v, "truncnorm", args=(*bounds, 0.5, 1.5)).pvalue > 1e-3


def test_normal_inverse():
    import scipy.special

    p = np.concatenate([np.logspace(-300, -0.31, 500), 1 - np.logspace(-16, -0.31, 200)])
    np.testing.assert_allclose(nn.init._normal_inverse(p), scipy.special.ndtri(p), 1e-13, 1e-14)


def test_init_without_chance():
    for name, shape in [("eye_", (3, 4)), ("dirac_", (4, 3, 3)), ("dirac_", (2, 3, 3, 4))]:
        ours, theirs = spool.empty(*shape), torch.empty(*shape)
        getattr(nn.init, name)(ours)
        getattr(torch.nn.init, name)(theirs)
        assert ours.tolist() == theirs.tolist()
    ours, theirs = spool.empty(4, 2, 3), torch.empty(4, 2, 3)
    assert nn.init.dirac_(ours, 2).tolist() == torch.nn.init.dirac_(theirs, 2).tolist()
    assert nn.init.constant_(spool.empty(2), 3.5).tolist() == [3.5, 3.5]
    assert nn.init.zeros_(spool.empty(2)).tolist() == [0, 0]
    p = nn.Parameter(spool.zeros(2))
    assert nn.init.ones_(p) is p and p.tolist() == [1, 1] and p.grad_fn is None
    for name in ("linear", "conv2d", "tanh", "relu", "leaky_relu", "selu", "sigmoid"):
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert nn.init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain(
        "leaky_relu", 0.2
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda i, t: i.calculate_gain("none"),
        lambda i, t: i.xavier_uniform_(t(3)),
        lambda i, t: i.kaiming_normal_(t(3, 3), mode="fan"),
        lambda i, t: i.eye_(t(3)),
        lambda i, t: i.dirac_(t(3, 3)),
        lambda i, t: i.orthogonal_(t(3)),
        lambda i, t: i.sparse_(t(3), 0.5),
    ],
)
def test_init_errors(call):
    for init, zeros in ((torch.nn.init, torch.zeros), (nn.init, spool.zeros)):
        with pytest.raises(ValueError):
            call(init, zeros)


def test_init_refuses_integers():
    with pytest.raises(spool.DTypeError):
        nn.init.uniform_(spool.tensor([1, 2]))


def test_init_is_seeded():
    spool.manual_seed(3)
    a = nn.Linear(4, 5).state_dict()
    spool.manual_seed(3)
    b = nn.Linear(4, 5).state_dict()
    assert all(a[k].tolist() == b[k].tolist() for k in a)


# ---- utilities


def with_grads(library, tensor):
    parameters = []
    for shape in [(3, 4), (5,), (), (0,)]:
        p = library.Parameter(tensor(array(*shape)))
        p.grad = tensor(array(*shape) * 3)
        parameters.append(p)
    return [*parameters, library.Parameter(tensor(array(2)))]


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, 0.5, math.inf])
@pytest.mark.parametrize("bound", [0.1, 1e6])
def test_clip_grad_norm(norm, bound):
    ours, theirs = with_grads(nn, spool.tensor), with_grads(torch.nn, torch.tensor)
    if norm == math.inf:
        theirs = theirs[:3]  # PyTorch has no largest of nothing
    a = nn.utils.clip_grad_norm_(ours, bound, norm)
    b = torch.nn.utils.clip_grad_norm_(theirs, bound, norm)
    np.testing.assert_allclose(a.item(), b.item(), 1e-5)
    for p, q in zip(ours[:3], theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-5)


@pytest.mark.parametrize("norm", [0.0, 0.5, -1.0, -math.inf])
def test_odd_norms(norm):
    values = [[3.0, -4.0, 1.5], [[1.0], [-2.0]], 0.25]
    ours = nn.utils.get_total_norm([spool.tensor(v) for v in values], norm)
    theirs = torch.nn.utils.get_total_norm([torch.tensor(v) for v in values], norm, foreach=False)
    np.testing.assert_allclose(ours.item(), theirs.item(), 1e-6)


def test_clipping_of_several_dtypes():
    """The norm has the widest, each gradient its own."""
    ours, theirs = [], []
    for dtype in ("float16", "float32", "float64"):
        for found, library, tensor in ((ours, nn, spool), (theirs, torch.nn, torch)):
            p = library.Parameter(tensor.ones(3, dtype=getattr(tensor, dtype)))
            p.grad = tensor.tensor([3.0, -4.0, 1.5], dtype=p.dtype)
            found.append(p)
    a = nn.utils.clip_grad_norm_(ours, 0.5, foreach=False)
    b = torch.nn.utils.clip_grad_norm_(theirs, 0.5, foreach=False)
    assert a.dtype == spool.float64
    np.testing.assert_allclose(a.item(), b.item(), 1e-3)
    for p, q in zip(ours, theirs):
        assert p.grad.dtype == p.dtype
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 2e-3)


def test_clip_grad_value():
    ours, theirs = with_grads(nn, spool.tensor), with_grads(torch.nn, torch.tensor)
    nn.utils.clip_grad_value_(ours, 0.7)
    torch.nn.utils.clip_grad_value_(theirs, 0.7)
    for p, q in zip(ours[:4], theirs):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_nonfinite_norms():
    p = nn.Parameter(spool.ones(2))
    p.grad = spool.tensor([math.nan, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert math.isnan(nn.utils.clip_grad_norm_(p, 1.0).item())
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_parameters_and_vectors():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (11,)
    (vector * vector).sum().backward()
    np.testing.assert_allclose(net[0].weight.grad.numpy(), 2 * net[0].weight.detach().numpy())
    with spool.no_grad():
        nn.utils.vector_to_parameters(vector * 2, net.parameters())
    np.testing.assert_allclose(net[1].bias.item(), 2 * vector[-1].item())
    with pytest.raises(spool.ShapeError):
        nn.utils.vector_to_parameters(spool.ones(10), net.parameters())
