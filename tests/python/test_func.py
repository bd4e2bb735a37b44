"""``spool.func`` against ``torch.func`` on the same functions: alone, nested in any order, with trees, aux, chunks and modules."""

import itertools

import numpy as np
import pytest
import torch

import spool

RNG = np.random.default_rng(0)
X = RNG.standard_normal(4)
Y = RNG.standard_normal(4)
ROWS = RNG.standard_normal((3, 4))
W = RNG.standard_normal((4, 4))
LIBRARIES = (spool, torch)


def numbers(tree):
    """A tree with arrays for tensors, dicts as sorted items."""
    if isinstance(tree, (spool.Tensor, torch.Tensor)):
        return np.asarray(tree.detach().numpy())
    if isinstance(tree, dict):
        return {key: numbers(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(numbers(value) for value in tree)
    return tree


def compare(mine, theirs, tolerance=1e-10):
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert list(mine) == list(theirs)
        mine, theirs = list(mine.values()), list(theirs.values())
    if isinstance(mine, (tuple, list)):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            compare(a, b, tolerance)
        return
    assert np.shape(mine) == np.shape(theirs)
    np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def agree(program, *arrays):
    """program(lib, tensors) gives the same tree in both libraries."""
    mine, theirs = (numbers(program(lib, *map(lib.tensor, arrays))) for lib in LIBRARIES)
    compare(mine, theirs)


def vector_of(lib, w):
    """A smooth function of a vector, to a vector; w is captured."""
    return lambda x: lib.tanh(w @ x) * x + x.sum().exp() * 0.1


def scalar_of(lib, w):
    return lambda x: (vector_of(lib, w)(x) ** 2).sum()


# ---- reverse mode ----------------------------------------------------------------------------------------------------------


def test_vjp_keeps_the_tape_of_one_run():
    runs = []

    def f(x):
        runs.append(1)
        return x * x * x

    x = spool.tensor([1.0, 2.0])
    output, pull = spool.func.vjp(f, x)
    assert output.tolist() == [1.0, 8.0]
    for scale in (1.0, 2.0, 3.0):
        assert pull(spool.tensor([scale, scale]))[0].tolist() == [3 * scale, 12 * scale]
    assert len(runs) == 1


def test_vjp_pulls_back_under_other_transforms():
    def program(lib, x, w):
        func = lib.func
        _, pull = func.vjp(vector_of(lib, w), x)
        rows = func.vmap(pull)(w)
        twice = func.jvp(lambda c: pull(c)[0], (x,), (x * 2,))
        along = func.grad(lambda c: (pull(c)[0] ** 2).sum())(x)
        return rows, twice, along

    agree(program, X, W)


def test_vjp_is_differentiable_by_what_it_closed_over():
    def program(lib, x, w):
        def through(w):
            _, pull = lib.func.vjp(vector_of(lib, w), x)
            return (pull(x)[0] ** 2).sum() + pull(x * 2)[0].sum()

        return lib.func.grad(through)(w), lib.func.jacfwd(through)(w)

    agree(program, X, W)


def test_vjp_on_the_tape_below_all_transforms():
    def program(lib, x, w):
        x.requires_grad_()
        w.requires_grad_()
        output, pull = lib.func.vjp(vector_of(lib, w), x)
        (pull(x)[0].sum() + output.sum()).backward()
        return x.grad, w.grad

    agree(program, X, W)


def test_vjp_of_trees_and_several_results():
    def program(lib, x, y):
        def f(a, b):
            return {"sum": a["p"] + b, "parts": [a["p"] * b, a["q"][0].sum()]}

        output, pull, aux = lib.func.vjp(
            lambda a, b: (f(a, b), b * 2), {"p": x, "q": (y,)}, y, has_aux=True
        )
        return output, pull({"sum": x, "parts": [y, y.sum()]}), aux

    agree(program, X, Y)


def test_vjp_after_the_transform_around_it_has_ended():
    kept = []

    def f(x):
        output, pull = spool.func.vjp(lambda a: a * x, x * 2)
        kept.append(pull)
        return output.sum()

    spool.func.grad(f)(spool.ones(2))
    with pytest.raises(RuntimeError, match="ended"):
        kept[0](spool.ones(2))
    spool.func.vmap(f)(spool.ones(3, 2))
    with pytest.raises(RuntimeError, match="ended"):
        kept[1](spool.ones(2))


def test_vjp_where_nothing_is_differentiable():
    output, pull = spool.func.vjp(lambda x: (x > 0, x.detach(), spool.ones(2)), spool.ones(3))
    given = (spool.ones(3), spool.ones(3), spool.ones(2))
    assert output[0].dtype == spool.bool
    assert pull(given)[0].tolist() == [0.0, 0.0, 0.0]


def test_vjp_refuses_cotangents_of_another_form():
    _, pull = spool.func.vjp(lambda x: (x, x * 2), spool.ones(3))
    for wrong in (
        spool.ones(3),
        (spool.ones(3),),
        (spool.ones(3), spool.ones(2)),
        [spool.ones(3)] * 2,
    ):
        with pytest.raises(spool.ShapeError, match="cotangents"):
            pull(wrong)
    with pytest.raises(TypeError, match="cotangents"):
        pull((1.0, 2.0))


def test_grad_takes_tuples_of_arguments_aux_and_containers():
    def program(lib, x, y):
        def f(a, b, c, scale=1.0):
            loss = (a["u"] * b).sum() * scale + (c[0][0] ** 2).sum()
            return loss, {"twice": loss * 2}

        args = ({"u": x}, y, [(y,), x])
        func = lib.func
        return (
            func.grad(f, argnums=(0, -1), has_aux=True)(*args, scale=3.0),
            func.grad_and_value(f, argnums=1, has_aux=True)(*args),
            func.grad(lambda a: f(*a)[0])(args),
        )

    agree(program, X, Y)


def test_argnums_named_twice_are_refused():
    with pytest.raises(ValueError, match="twice"):
        spool.func.grad(lambda a, b: (a * b).sum(), argnums=(0, -2))(spool.ones(2), spool.ones(2))


# ---- forward mode ----------------------------------------------------------------------------------------------------------


def test_linearize():
    def program(lib, x, y, w):
        output, push = lib.func.linearize(lambda a, b: (vector_of(lib, w)(a) * b, a.sum()), x, y)
        return output, push(y, x), push(x, x), lib.func.vmap(push, in_dims=(0, None))(w, x)

    agree(program, X, Y, W)


def test_linearize_runs_the_function_once_and_checks_tangents():
    runs = []

    def f(x):
        runs.append(1)
        return x.exp()

    _, push = spool.func.linearize(f, spool.zeros(2))
    assert push(spool.ones(2)).tolist() == push(spool.ones(2)).tolist() == [1.0, 1.0]
    assert len(runs) == 1
    with pytest.raises(spool.ShapeError, match="tangents"):
        push(spool.ones(3))
    with pytest.raises(spool.ShapeError, match="tangents"):
        push(spool.ones(2), spool.ones(2))


def test_linearize_differentiates_by_the_point():
    def program(lib, x, w):
        def at(x):
            return lib.func.linearize(vector_of(lib, w), x)[1](w[0]).sum()

        return lib.func.grad(at)(x)

    if hasattr(torch.func, "linearize"):
        x, w = spool.tensor(X), spool.tensor(W)
        mine = program(spool, x, w)
        theirs = torch.func.grad(
            lambda x: torch.func.jvp(
                vector_of(torch, torch.tensor(W)), (x,), (torch.tensor(W[0]),)
            )[1].sum()
        )(torch.tensor(X))
        compare(numbers(mine), numbers(theirs))


def test_jvp_with_aux_and_trees():
    def program(lib, x, y):
        def f(tree, b):
            return [tree["a"] * b, (tree["a"].sum(),)], {"aux": b * 3}

        return lib.func.jvp(f, ({"a": x}, y), ({"a": y}, x), has_aux=True)

    agree(program, X, Y)


def test_hvp():
    f, g = scalar_of(spool, spool.tensor(W)), scalar_of(torch, torch.tensor(W))
    x, v = spool.tensor(X), spool.tensor(Y)
    wanted = torch.func.hessian(g)(torch.tensor(X)) @ torch.tensor(Y)
    compare(numbers(spool.func.hvp(f, (x,), (v,))), numbers(wanted))
    pair = spool.func.hvp(lambda a, b: (a["k"] ** 2 * b).sum(), ({"k": x}, v), ({"k": v}, x))
    compare(numbers(pair), ({"k": 2 * Y * Y + 2 * X * X}, 2 * X * Y))
    with pytest.raises(spool.ShapeError, match="one element"):
        spool.func.hvp(lambda a: a, (x,), (v,))
    with pytest.raises(TypeError, match="tuple"):
        spool.func.hvp(f, x, v)


# ---- Jacobians -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["jacrev", "jacfwd"])
def test_jacobians_of_trees(mode):
    def program(lib, x, w):
        def f(a, b):
            out = {"v": lib.tanh(b["w"] @ a), "s": (a * a).sum(), "m": b["w"] * a.sum()}
            return out, {"seen": a * 2}

        jacobian = getattr(lib.func, mode)
        return (
            jacobian(f, argnums=(0, 1), has_aux=True)(x, {"w": w}),
            jacobian(lambda a, b: f(a, b)[0], argnums=1)(x, {"w": w}),
            jacobian(lambda a: (a, a.sum()))(x),
        )

    agree(program, X, W)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_jacrev_in_chunks(chunk):
    agree(lambda lib, x, w: lib.func.jacrev(vector_of(lib, w), chunk_size=chunk)(x), X, W)


def test_jacrev_refuses_chunks_of_nothing():
    for chunk in (0, -1, 1.5):
        with pytest.raises(ValueError, match="chunk_size"):
            spool.func.jacrev(lambda x: x, chunk_size=chunk)


def test_jacrev_runs_the_function_once():
    runs = []

    def f(x):
        runs.append(1)
        return x * x, x.exp()

    spool.func.jacrev(f)(spool.ones(3))
    assert len(runs) == 1


def test_jacobians_of_empty_and_single_elements():
    for mode in (spool.func.jacrev, spool.func.jacfwd):
        assert mode(lambda x: x * 2)(spool.ones(0)).shape == (0, 0)
        assert mode(lambda x: x.sum())(spool.ones(0)).shape == (0,)
        assert mode(lambda x: x.reshape(1, 1) * 3)(spool.ones(1)).tolist() == [[[3.0]]]
        assert mode(lambda x: x * 3)(spool.tensor(1.0)).shape == ()
        assert mode(lambda x: spool.zeros(2))(spool.ones(3)).tolist() == [[0.0] * 3] * 2
        with pytest.raises(spool.DTypeError, match="floating"):
            mode(lambda x: x > 0)(spool.ones(2))


def test_hessians():
    def program(lib, x, y, w):
        f = scalar_of(lib, w)
        return (
            lib.func.hessian(f)(x),
            lib.func.hessian(vector_of(lib, w))(x),
            lib.func.hessian(lambda a, b: (a * b * a).sum(), argnums=(0, 1))(x, y),
            lib.func.jacrev(lib.func.jacrev(f))(x),
            lib.func.jacrev(lib.func.jacfwd(f))(x),
            lib.func.jacfwd(lib.func.jacfwd(f))(x),
        )

    agree(program, X, Y, W)


# ---- vmap ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7])
def test_vmap_in_chunks(chunk):
    def program(lib, rows, x, w):
        def f(row, tree, v):
            return {"a": row * tree["x"] + v, "b": (w @ row, tree["x"] * 2)}

        mapped = lib.func.vmap(
            f,
            in_dims=(0, {"x": None}, 1),
            out_dims={"a": 1, "b": (0, 0)},
            chunk_size=chunk,
        )
        return mapped(rows, {"x": x}, w[:, :3])

    agree(program, ROWS, X, W)


def test_vmap_refuses_what_has_no_meaning():
    rows = spool.ones(3, 2)
    with pytest.raises(ValueError, match="out_dims is None"):
        spool.func.vmap(lambda r: r * 2, out_dims=None)(rows)
    with pytest.raises(ValueError, match="chunk_size"):
        spool.func.vmap(lambda r: r, chunk_size=0)
    with pytest.raises(TypeError, match="out_dims"):
        spool.func.vmap(lambda r: r, out_dims="x")(rows)
    same = spool.func.vmap(lambda r, s: (r, s * 2), in_dims=(0, None), out_dims=(0, None))
    assert same(rows, spool.ones(2))[1].shape == (2,)
    some = spool.func.vmap(lambda r, s: s * 2, in_dims=(0, None), out_dims=None, chunk_size=2)
    assert some(rows, spool.ones(2)).shape == (2,)


def test_aux_may_hold_what_is_no_tensor():
    aux = {"name": "n", "value": 3}
    f = lambda x: (x.sum(), aux)  # noqa: E731
    assert spool.func.grad(f, has_aux=True)(spool.ones(2))[1] == aux
    assert spool.func.vjp(f, spool.ones(2), has_aux=True)[2] == aux
    assert spool.func.jacfwd(f, has_aux=True)(spool.ones(2))[1] == aux


# ---- nesting ---------------------------------------------------------------------------------------------------------------

WAYS = {
    "grad": lambda t, f: lambda x: t.grad(lambda y: f(y).sum())(x),
    "jvp": lambda t, f: lambda x: t.jvp(f, (x,), (x * 0.5 + 1,))[1],
    "vjp": lambda t, f: lambda x: t.vjp(f, x)[1](f(x) * 0.3)[0],
    "vmap": lambda t, f: lambda x: t.vmap(lambda s: f(x * s).sum())(x[:2]).sum() * x,
    "jacrev": lambda t, f: lambda x: t.jacrev(f)(x).sum(0),
    "jacfwd": lambda t, f: lambda x: t.jacfwd(f)(x).sum(0),
}


@pytest.mark.parametrize("names", list(itertools.product(WAYS, repeat=2)), ids="-".join)
def test_any_two_nest_in_any_order(names):
    def program(lib, x, w):
        f = vector_of(lib, w)
        for name in names:
            f = WAYS[name](lib.func, f)
        return f(x)

    agree(program, X, W)


@pytest.mark.parametrize("seed", range(12))
def test_three_nest_in_any_order(seed):
    names = np.random.default_rng(seed).choice(list(WAYS), 3)

    def program(lib, x, w):
        f = vector_of(lib, w)
        for name in names:
            f = WAYS[name](lib.func, f)
        return f(x * 0.3)

    agree(program, X, W)


def test_functions_as_arguments_and_results():
    def program(lib, x, w):
        def compose(f, g):
            return lambda x: f(g(x))

        def apply(f, x, times):
            for _ in range(times):
                f = compose(f, vector_of(lib, w * 0.3))
            return f(x).sum()

        return lib.func.grad(lambda x: apply(lambda y: y * x, x, 2))(x)

    agree(program, X, W)


# ---- modules ---------------------------------------------------------------------------------------------------------------


def tied(lib):
    class Tied(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = lib.nn.Parameter(lib.ones(2))
            self.b = self.a
            self.register_buffer("count", lib.ones(1))

        def forward(self, x, scale=1.0):
            self.count = self.count + 1
            return (x * self.a + self.b) * scale + self.count

    return Tied()


def test_functional_call():
    def program(lib, x):
        model, results = tied(lib), []
        x = x[:2].to(lib.float32)
        call = lib.func.functional_call
        given = {"count": x[:1] * 0}
        results.append(call(model, {"a": x}, (x,), {"scale": 2.0}))
        results.append(call(model, {"a": x}, x, tie_weights=False))
        results.append(call(model, ({"b": x}, given), x, strict=True))
        results.append(given["count"].clone())
        results.append(call(model, given, x))
        results += [given["count"], model.count, model.a]
        results.append(call(model, {"a": x, "nothing": x}, x))
        return results

    agree(program, X)


def test_functional_call_puts_back_what_it_replaced():
    model = tied(spool)
    a = model.a
    with pytest.raises(TypeError, match="forward"):
        spool.func.functional_call(model, {"a": spool.zeros(2)})
    assert model.a is a and model.b is a
    with pytest.raises(ValueError, match="one tensor of the module"):
        spool.func.functional_call(model, {"a": spool.zeros(2), "b": spool.ones(2)}, spool.ones(2))
    with pytest.raises(ValueError, match="several"):
        spool.func.functional_call(model, ({"a": spool.zeros(2)},) * 2, spool.ones(2))
    with pytest.raises(RuntimeError, match="count"):
        spool.func.functional_call(model, {"a": spool.zeros(2)}, spool.ones(2), strict=True)
    with pytest.raises(RuntimeError, match="zzz"):
        spool.func.functional_call(model, {"zzz": spool.zeros(2)}, spool.ones(2), strict=True)
    with pytest.raises(TypeError, match="Tensor"):
        spool.func.functional_call(model, {"a": 3}, spool.ones(2))
    with pytest.raises(ValueError, match="dict"):
        spool.func.functional_call(model, 3, spool.ones(2))


def test_ensembles_and_gradients_of_examples():
    def program(lib, rows):
        nn = lib.nn
        models = []
        for k in range(3):
            model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
            for i, p in enumerate(model.parameters()):
                with lib.no_grad():
                    p.copy_(lib.arange(p.numel()).reshape(p.shape) * 0.01 * (i + 1) + k * 0.1)
            models.append(model)
        params, buffers = lib.func.stack_module_state(models)
        x = rows.to(lib.float32)

        def loss(params, row):
            return (lib.func.functional_call(models[0], (params, buffers), (row,)) ** 2).sum()

        func = lib.func
        per_example = func.vmap(func.grad(loss), in_dims=(None, 0))
        one = {name: p[0] for name, p in params.items()}
        return func.vmap(loss, in_dims=(0, None))(params, x), per_example(one, x)

    mine, theirs = (numbers(program(lib, lib.tensor(ROWS))) for lib in LIBRARIES)
    compare(mine, theirs, 1e-5)


def test_stack_module_state_makes_leaves():
    models = [spool.nn.Linear(2, 3) for _ in range(2)]
    params, buffers = spool.func.stack_module_state(models)
    assert buffers == {} and list(params) == ["weight", "bias"]
    assert all(p.requires_grad and p.is_leaf for p in params.values())
    models[1].bias.requires_grad_(False)
    for wrong, match in (
        ([], "at least one"),
        ([spool.nn.Linear(1, 1), spool.nn.ReLU()], "one class"),
        ([spool.nn.Linear(1, 1), spool.nn.Linear(1, 1).eval()], "training"),
        (models, "requires gradients in some"),
        ([spool.nn.Linear(1, 1), spool.nn.Linear(1, 1, bias=False)], "same parameters"),
    ):
        with pytest.raises(RuntimeError, match=match):
            spool.func.stack_module_state(wrong)
