"""spool.optim: trajectories and schedules equal to PyTorch's, state that can be saved, steps that a plan takes in."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest

import spool
from spool import nn, optim

torch = pytest.importorskip("torch")

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd decay": ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "dampening": ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd up": ("SGD", {"lr": 0.001, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.03}),
    "adam decay": ("Adam", {"lr": 0.03, "weight_decay": 0.1, "betas": (0.7, 0.9), "eps": 1e-4}),
    "amsgrad": ("Adam", {"lr": 0.03, "amsgrad": True, "betas": (0.5, 0.6)}),
    "adam up": ("Adam", {"lr": 0.003, "maximize": True, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 0.03, "weight_decay": 0.1}),
    "adamw amsgrad": ("AdamW", {"lr": 0.03, "amsgrad": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.7, "weight_decay": 0.1}),
    "rmsprop centered": ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.3}),
    "rmsprop up": ("RMSprop", {"lr": 0.001, "maximize": True}),
    "adamax": ("Adamax", {"lr": 0.03}),
    "adamax decay": ("Adamax", {"lr": 0.03, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "adamax up": ("Adamax", {"lr": 0.003, "maximize": True}),
    "nadam": ("NAdam", {"lr": 0.03}),
    "nadam decay": (
        "NAdam",
        {"lr": 0.03, "weight_decay": 0.1, "momentum_decay": 0.1, "betas": (0.7, 0.9)},
    ),
    "nadamw": ("NAdam", {"lr": 0.03, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "nadam up": ("NAdam", {"lr": 0.003, "maximize": True, "eps": 1e-4}),
    "radam": ("RAdam", {"lr": 0.03}),
    "radam decay": ("RAdam", {"lr": 0.03, "weight_decay": 0.1, "betas": (0.7, 0.99), "eps": 1e-4}),
    "radamw": ("RAdam", {"lr": 0.03, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam up": ("RAdam", {"lr": 0.003, "maximize": True}),
    "adadelta": ("Adadelta", {"lr": 1.0}),
    "adadelta decay": ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    "adadelta up": ("Adadelta", {"lr": 0.1, "maximize": True}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad decay": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.05}),
    "adagrad start": ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
}
SHAPES = [(4, 3), (3,), (), (2, 1, 2), (0,)]


def start(dtype):
    rng = np.random.default_rng(3)
    values = [rng.normal(size=s).astype(dtype) for s in SHAPES]
    return values, [rng.normal(size=s).astype(dtype) for s in SHAPES]


def loss_of(params, targets, i):
    """Not convex, and other every time; the last parameter gets a gradient only now and then."""
    total = 0
    for n, (p, t) in enumerate(zip(params, targets)):
        d = p - t * (1.0 + 0.1 * math.sin(i))
        total = total + (d * d).sum() if n != 1 or i % 3 else total
        total = total + 0.3 * (d * 2.0).tanh().sum()
    return total


def run(library, optimizers, name, dtype, steps):
    tensor = spool.tensor if library is nn else torch.tensor
    values, targets = start(dtype)
    params = [library.Parameter(tensor(v)) for v in values]
    targets = [tensor(t) for t in targets]
    kind, options = OPTIMIZERS[name]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": options["lr"] / 2}]
    opt = getattr(optimizers, kind)(groups, **options)
    for i in range(steps):
        loss_of(params, targets, i).backward()
        opt.step()
        opt.zero_grad()
    return [p.detach().numpy() for p in params], opt


@pytest.fixture
def wide_numbers():
    """PyTorch keeps what NAdam counts in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-11), (np.float32, 1e-4)])
def test_trajectories(name, dtype, tolerance, wide_numbers):
    ours, our_opt = run(nn, optim, name, dtype, 100)
    theirs, their_opt = run(torch.nn, torch.optim, name, dtype, 100)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, tolerance, tolerance)
    a, b = our_opt.state_dict(), their_opt.state_dict()
    assert a["state"].keys() == b["state"].keys()
    for key in b["state"]:
        wanted = {k: v for k, v in b["state"][key].items() if v is not None}
        assert a["state"][key].keys() == wanted.keys()
    for ga, gb in zip(a["param_groups"], b["param_groups"]):
        assert ga["params"] == gb["params"]
        assert set(gb) >= set(ga) - {"decoupled_weight_decay"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_from_state(name):
    """Half of the steps, then the rest with a new optimizer that got the state: the bits of all in one go."""

    def go(restart):
        values, targets = start(np.float32)
        params = [nn.Parameter(spool.tensor(v)) for v in values]
        targets = [spool.tensor(t) for t in targets]
        kind, options = OPTIMIZERS[name]
        opt = getattr(optim, kind)(params, **options)
        for i in range(10):
            if i == 5 and restart:
                state = pickle.loads(pickle.dumps(opt.state_dict()))
                opt = getattr(optim, kind)(params, lr=123.0)
                opt.load_state_dict(state)
            loss_of(params, targets, i).backward()
            opt.step()
            opt.zero_grad()
        return [p.tolist() for p in params]

    assert go(True) == go(False)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_under_jit(name):
    """Equal bits, and no new graphs as the rate and the number of the step change."""

    def go(step_of):
        values, targets = start(np.float32)
        params = [nn.Parameter(spool.tensor(v)) for v in values[:4]]
        targets = [spool.tensor(t) for t in targets]
        kind, options = OPTIMIZERS[name]
        opt = getattr(optim, kind)(params, **options)

        def step(x):
            loss = sum(((p - t * x) * (p - t)).sum() for p, t in zip(params, targets))
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.detach()

        step = step_of(step)
        losses = []
        for i in range(10):
            opt.param_groups[0]["lr"] *= 0.9
            losses.append(step(spool.tensor(1.0 + i)).item())
        return losses + [p.tolist() for p in params], step

    eager, _ = go(lambda f: f)
    jitted, step = go(spool.jit)
    assert eager == jitted
    report = spool.explain(step, quiet=True)
    assert report.compiled_ops == report.ops > 0 and report.breaks == 0, report.text
    assert report.graphs <= 3, report.text


def plain_start():
    values, grads = start(np.float32)
    params = [nn.Parameter(spool.tensor(v)) for v in values]
    for p, g in zip(params, grads):
        p.grad = spool.tensor(g)
    return params


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_one_launch(name):
    """However many parameters; and it has the bits of steps of optimizers for one parameter each."""
    kind, options = OPTIMIZERS[name]
    together, apart = plain_start(), plain_start()
    whole = getattr(optim, kind)(together, **options)
    single = [getattr(optim, kind)([p], **options) for p in apart]
    for _ in range(3):
        for opt in (whole, *single):
            opt.step()
        assert [p.tolist() for p in together] == [p.tolist() for p in apart]
    spool.synchronize()
    spool.launch.reset_stats()
    whole.step()
    spool.synchronize()
    assert spool.launch.stats()["eager_launches"] == 1


def test_strided_and_shared_memory():
    def layouts(arrange):
        rng = np.random.default_rng(0)
        flat = spool.tensor(rng.normal(size=(40, 30)).astype(np.float32))
        grads = spool.tensor(rng.normal(size=(40, 30)).astype(np.float32))
        params = [nn.Parameter(x) for x in arrange(flat)]
        for p, g in zip(params, arrange(grads)):
            p.grad = g
        opt = optim.Adam(params, lr=0.1, amsgrad=True, weight_decay=0.1)
        for _ in range(3):
            opt.step()
        return [p.tolist() for p in params]

    views = layouts(lambda x: [x[:20], x[20:].t(), x[20:, ::3].clone().t()])
    apart = layouts(
        lambda x: [x[:20].clone(), x[20:].t().contiguous(), x[20:, ::3].t().contiguous()]
    )
    assert views == apart


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    """Computed in float32 and rounded once; beside parameters of another dtype in one group."""

    def run(lib, optimizers):
        rng = np.random.default_rng(0)
        half = getattr(lib, dtype)
        params = [lib.nn.Parameter(lib.tensor(rng.normal(size=n)).to(half)) for n in (5, 40)]
        params.append(lib.nn.Parameter(lib.tensor(rng.normal(size=7))))
        for p in params:
            p.grad = lib.tensor(rng.normal(size=p.shape)).to(p.dtype)
        opt = optimizers.AdamW(params, lr=0.1, betas=(0.5, 0.9), eps=1e-2)
        for _ in range(3):
            opt.step()
        return params, opt

    (ours, opt), (theirs, _) = run(spool, optim), run(torch, torch.optim)
    for a, b in zip(ours, theirs):
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        assert opt.state[a]["exp_avg"].dtype == a.dtype
        np.testing.assert_allclose(
            a.detach().double().numpy(), b.detach().double().numpy(), 2e-2, 2e-2
        )


def test_gradients_that_do_not_fit():
    params = plain_start()
    before = [p.tolist() for p in params]
    params[2].grad = None
    opt = optim.Adam(params, lr=0.1)
    opt.state[params[0]]["exp_avg"] = spool.zeros(4)
    with pytest.raises(spool.ShapeError, match="adam_step: param has shape"):
        opt.step()
    assert [p.tolist() for p in params] == before


def quadratic():
    w = nn.Parameter(spool.tensor([1.0, -2.0]))
    w.grad = spool.ones(2)
    return w


def test_closure():
    w = quadratic()
    opt = optim.SGD([w], lr=0.25)
    seen = []

    @spool.no_grad()
    def outer():
        def closure():
            opt.zero_grad()
            loss = (w * w).sum()
            loss.backward()
            seen.append(loss.item())
            return loss

        return opt.step(closure)

    assert outer().item() == 5.0 and seen == [5.0] and w.tolist() == [0.5, -1.0]


LBFGS = {
    "fixed": {"lr": 0.1},
    "one by one": {"lr": 0.2, "max_iter": 1},
    "short memory": {"lr": 0.1, "history_size": 2, "max_iter": 7},
    "few evaluations": {"lr": 0.1, "max_eval": 4},
    "search": {"line_search_fn": "strong_wolfe"},
    "short search": {"line_search_fn": "strong_wolfe", "max_iter": 4, "max_eval": 6, "lr": 3.0},
    "cautious search": {"line_search_fn": "strong_wolfe", "max_iter": 3, "lr": 1e-3},
}


def valley(params):
    """Rosenbrock's function of the first parameter, and a bowl of the second; the third is left out."""
    x, y = params[0], params[1]
    ahead, behind = x[1:], x[:-1]
    return (100.0 * (ahead - behind**2) ** 2 + (1.0 - behind) ** 2).sum() + (y * y).sum()


def lbfgs_run(library, optimizers, options, steps, restart=None):
    tensor = spool.tensor if library is nn else torch.tensor
    values = [[-1.2, 1.0, 0.5], [[2.0], [-3.0]], [4.0]]
    params = [library.Parameter(tensor(np.array(v))) for v in values]
    opt, losses = optimizers.LBFGS(params, **options), []

    def closure():
        opt.zero_grad()
        loss = valley(params)
        loss.backward()
        return loss

    for i in range(steps):
        if i == restart:
            state = pickle.loads(pickle.dumps(opt.state_dict()))
            opt = optimizers.LBFGS(params, lr=123.0)
            opt.load_state_dict(state)
        losses.append(opt.step(closure).item())
    return losses, [p.detach().numpy() for p in params], opt


@pytest.mark.parametrize("name", LBFGS)
def test_lbfgs_takes_pytorchs_steps(name):
    losses, params, opt = lbfgs_run(nn, optim, LBFGS[name], 6)
    wanted, their_params, their_opt = lbfgs_run(torch.nn, torch.optim, LBFGS[name], 6)
    np.testing.assert_allclose(losses, wanted, 1e-6, 1e-12)
    for a, b in zip(params, their_params):
        np.testing.assert_allclose(a, b, 1e-5, 1e-9)
    mine, theirs = opt.state_dict()["state"][0], their_opt.state_dict()["state"][0]
    assert {k: mine[k] for k in ("func_evals", "n_iter")} == {
        k: theirs[k] for k in ("func_evals", "n_iter")
    }


def test_lbfgs_resumes_and_finds_minima():
    options = {"line_search_fn": "strong_wolfe", "max_iter": 5, "max_eval": 10}
    whole, halves = (lbfgs_run(nn, optim, options, 40, restart)[0] for restart in (None, 3))
    assert whole == halves
    assert whole[-1] < 1e-9


def test_lbfgs_of_complex_parameters_and_of_several_dtypes():
    z = nn.Parameter(spool.tensor([1 + 2j, -3j]))
    x = nn.Parameter(spool.tensor([1.0, 5.0], dtype=spool.float64))
    opt = optim.LBFGS([z, x], line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = ((z - (2 - 1j)).abs() ** 2).sum() + ((x - 3.0) ** 2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    np.testing.assert_allclose(z.detach().numpy(), [2 - 1j] * 2, 1e-5)
    np.testing.assert_allclose(x.detach().numpy(), [3.0, 3.0], 1e-5)


def test_lbfgs_errors():
    w = nn.Parameter(spool.ones(2))
    with pytest.raises(ValueError, match="parameter groups"):
        optim.LBFGS([{"params": [w]}, {"params": [nn.Parameter(spool.ones(1))]}])
    with pytest.raises(ValueError, match="line_search_fn is 'armijo'"):
        optim.LBFGS([w], line_search_fn="armijo")
    with pytest.raises(TypeError, match="needs a closure"):
        optim.LBFGS([w]).step(None)


def test_groups():
    a, b, c = (quadratic() for _ in range(3))
    opt = optim.SGD([{"params": a, "lr": 1.0}, {"params": [b]}], lr=0.5)
    opt.add_param_group({"params": [c], "lr": 0.0})
    opt.step()
    assert a.tolist() == [0.0, -3.0] and b.tolist() == [0.5, -2.5] and c.tolist() == [1.0, -2.0]
    opt.zero_grad(set_to_none=False)
    assert a.grad.tolist() == [0, 0]
    opt.zero_grad()
    assert a.grad is None
    opt.step()
    assert a.tolist() == [0.0, -3.0]
    assert repr(opt).startswith("SGD (\nParameter Group 0\n    dampening: 0\n    lr: 1.0\n")


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: optim.SGD([], lr=1), ValueError, "empty"),
        (lambda: optim.SGD(quadratic(), lr=1), TypeError, "iterable"),
        (lambda: optim.SGD([3], lr=1), TypeError, "int"),
        (lambda: optim.SGD([{"params": {quadratic()}}], lr=1), TypeError, "ordered"),
        (lambda: optim.SGD([quadratic() * 1], lr=1), ValueError, "non-leaf"),
        (lambda: optim.SGD([quadratic()], lr=-1), ValueError, "lr"),
        (lambda: optim.SGD([quadratic()], nesterov=True), ValueError, "Nesterov"),
        (lambda: optim.Adam([quadratic()], betas=(1.0, 0.5)), ValueError, "index 0"),
        (lambda: optim.Adam([quadratic()], eps=-1), ValueError, "eps"),
        (lambda: optim.RMSprop([quadratic()], alpha=-1), ValueError, "alpha"),
        (lambda: optim.Adagrad([quadratic()], initial_accumulator_value=-1), ValueError, "initial"),
        (
            lambda: optim.Optimizer([quadratic()], {"lr": optim.optimizer.required}),
            ValueError,
            "lr",
        ),
        (lambda: optim.Optimizer([quadratic()], {}).step(), NotImplementedError, "_update"),
        (lambda: twice(quadratic()), ValueError, "more than one"),
        (lambda: load(1, 2), ValueError, "1 parameters for 2"),
        (lambda: optim.lr_scheduler.StepLR(3, 1), TypeError, "Optimizer"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def twice(w):
    optim.SGD([w], lr=1).add_param_group({"params": [w]})


def load(n, m):
    state = optim.SGD([quadratic() for _ in range(n)], lr=1).state_dict()
    optim.SGD([quadratic() for _ in range(m)], lr=1).load_state_dict(state)


def test_loaded_state_is_checked_and_converted():
    a = optim.Adam([quadratic()])
    a.step()
    state = copy.deepcopy(a.state_dict())
    wide = nn.Parameter(spool.zeros(2, dtype=spool.float64))
    b = optim.Adam([wide])
    b.load_state_dict(state)
    assert b.state[wide]["exp_avg"].dtype == spool.float64 and b.state[wide]["step"] == 1
    assert b.state[wide]["exp_avg"].tolist() == state["state"][0]["exp_avg"].tolist()
    with pytest.raises(ValueError, match="shape"):
        optim.Adam([nn.Parameter(spool.zeros(3))]).load_state_dict(state)


def test_hooks_and_copies():
    w = quadratic()
    opt, seen = optim.Adam([w]), []
    with opt.register_step_pre_hook(lambda o, a, k: seen.append("before")):
        after = opt.register_step_post_hook(lambda o, a, k: seen.append("after"))
        opt.step()
    after.remove()
    opt.step()
    assert seen == ["before", "after"]
    twin = pickle.loads(pickle.dumps(opt))
    twin.param_groups[0]["params"][0].grad = spool.ones(2)
    twin.step()
    opt.step()
    assert twin.param_groups[0]["params"][0].tolist() == w.tolist()


def test_parameters_converted_by_their_module():
    layer = nn.Linear(2, 2)
    opt = optim.Adam(layer.parameters())
    layer.double()
    layer(spool.ones(1, 2, dtype=spool.float64)).sum().backward()
    opt.step()
    assert opt.state[layer.weight]["exp_avg"].dtype == spool.float64


# ---- schedules

SCHEDULES = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda n: 0.9**n),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda n: 0.9**n, lambda n: 1 / (n + 1)]),
    "step": lambda s, o: s.StepLR(o, 3, 0.5),
    "steps": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.3),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.8),
    "constant": lambda s, o: s.ConstantLR(o, 0.25, 4),
    "linear": lambda s, o: s.LinearLR(o, 0.2, 0.7, 6),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 7, 0.001),
    "one cycle": lambda s, o: s.OneCycleLR(o, 0.5, 31),
    "one cycle linear": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.2], epochs=4, steps_per_epoch=8, anneal_strategy="linear", three_phase=True
    ),
    "sequence": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1, 20), s.ExponentialLR(o, 0.9), s.StepLR(o, 3)], [3, 9]
    ),
}


def schedule(library, optimizers, kind, make, steps=30):
    zeros = spool.zeros if library is nn else torch.zeros
    a, b = library.Parameter(zeros(1)), library.Parameter(zeros(1))
    opt = getattr(optimizers, kind)([{"params": [a]}, {"params": [b], "lr": 0.03}], lr=0.1)
    scheduler = make(optimizers.lr_scheduler, opt)
    rates = []
    for _ in range(steps):
        rates.append([g["lr"] for g in opt.param_groups])
        rates[-1] += [g.get("betas", (g.get("momentum"),))[0] for g in opt.param_groups]
        assert scheduler.get_last_lr() == rates[-1][:2]
        opt.step()
        scheduler.step()
    return np.array(rates), scheduler, opt


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name, kind):
    if name.startswith("one") and kind == "SGD":
        kind = "Adam"
    with warnings.catch_warnings():
        warnings.simplefilter("error" if name != "sequence" else "ignore")
        ours, _, _ = schedule(nn, optim, kind, SCHEDULES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, _, _ = schedule(torch.nn, torch.optim, kind, SCHEDULES[name])
    np.testing.assert_allclose(ours, theirs, 1e-9, 1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume(name):
    """After 11 steps, in a new optimizer and scheduler that got the state."""
    whole, _, _ = schedule(nn, optim, "Adam", SCHEDULES[name])
    _, scheduler, opt = schedule(nn, optim, "Adam", SCHEDULES[name], 11)
    params = [nn.Parameter(spool.zeros(1)) for _ in range(2)]
    again = optim.Adam([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.03}], lr=0.1)
    other = SCHEDULES[name](optim.lr_scheduler, again)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    other.load_state_dict(pickle.loads(pickle.dumps(scheduler.state_dict())))
    for wanted in whole[11:]:
        assert [g["lr"] for g in again.param_groups] == list(wanted[:2])
        again.step()
        other.step()


def test_chained_schedules():
    def make(s, o):
        class Both:
            def __init__(self):
                self.parts = [s.ExponentialLR(o, 0.9), s.StepLR(o, 4, 0.5), s.LinearLR(o, 0.5)]

            def step(self):
                for part in self.parts:
                    part.step()

            def get_last_lr(self):
                return [g["lr"] for g in o.param_groups]

        return Both()

    ours, theirs = (
        schedule(n, o, "Adam", make)[0] for n, o in ((nn, optim), (torch.nn, torch.optim))
    )
    np.testing.assert_allclose(ours, theirs, 1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau(mode, threshold_mode):
    values = np.random.default_rng(0).normal(size=60).cumsum() * 0.1 + 1

    def run(library, optimizers, tensor):
        opt = optimizers.SGD([library.Parameter(tensor([0.0]))], lr=1.0)
        s = optimizers.lr_scheduler.ReduceLROnPlateau(
            opt, mode, 0.5, 2, 0.01, threshold_mode, 1, 0.02
        )
        rates = []
        for v in values:
            s.step(tensor(v))
            rates.append(opt.param_groups[0]["lr"])
        return rates

    ours = run(nn, optim, spool.tensor)
    assert ours == run(torch.nn, torch.optim, torch.tensor) and len(set(ours)) > 3


def test_schedule_errors():
    def opt():
        return optim.SGD([quadratic()], lr=0.1)

    s = optim.lr_scheduler
    for call in (
        lambda: s.OneCycleLR(opt(), 0.1),
        lambda: s.OneCycleLR(opt(), 0.1, 10, pct_start=2),
        lambda: s.OneCycleLR(opt(), 0.1, 10, anneal_strategy="up"),
        lambda: s.OneCycleLR(optim.Adagrad([quadratic()]), 0.1, 10),
        lambda: s.OneCycleLR(opt(), [0.1, 0.2], 10),
        lambda: s.LambdaLR(opt(), [abs, abs]),
        lambda: s.LinearLR(opt(), 0.0),
        lambda: s.ConstantLR(opt(), 2.0),
        lambda: s.ReduceLROnPlateau(opt(), factor=1.0),
        lambda: s.ReduceLROnPlateau(opt(), mode="up"),
        lambda: s.SequentialLR(opt(), [], []),
        lambda: s.SequentialLR(opt(), [s.StepLR(opt(), 1)], []),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(KeyError, match="initial_lr"):
        s.StepLR(opt(), 1, last_epoch=3)
    with pytest.warns(UserWarning, match="before optimizer.step"):
        s.StepLR(opt(), 1).step()
