"""Normalisation, dropout, embedding, activation, recurrent and attention modules beside PyTorch's, on PyTorch's state."""

import numpy as np
import pytest
from test_nn import array, assert_same, to_spool, to_torch, twins

import spool
from spool import nn

torch = pytest.importorskip("torch")

ACTIVATIONS = {
    "CELU": lambda n: n.CELU(1.5),
    "ELU": lambda n: n.ELU(0.5),
    "GELU": lambda n: n.GELU(),
    "GELU by tanh": lambda n: n.GELU("tanh"),
    "GLU": lambda n: n.GLU(),
    "GLU along the first": lambda n: n.GLU(0),
    "Hardshrink": lambda n: n.Hardshrink(0.3),
    "Hardsigmoid": lambda n: n.Hardsigmoid(),
    "Hardswish": lambda n: n.Hardswish(),
    "Hardtanh": lambda n: n.Hardtanh(-0.5, 0.8),
    "LeakyReLU": lambda n: n.LeakyReLU(0.1),
    "LogSigmoid": lambda n: n.LogSigmoid(),
    "Mish": lambda n: n.Mish(),
    "PReLU": lambda n: n.PReLU(),
    "PReLU of channels": lambda n: n.PReLU(6, 0.1),
    "ReLU6": lambda n: n.ReLU6(),
    "SELU": lambda n: n.SELU(),
    "SiLU": lambda n: n.SiLU(),
    "Sigmoid": lambda n: n.Sigmoid(),
    "Softmax": lambda n: n.Softmax(dim=0),
    "Softmin": lambda n: n.Softmin(dim=1),
    "Softplus": lambda n: n.Softplus(2.0, 3.0),
    "Softshrink": lambda n: n.Softshrink(0.3),
    "Softsign": lambda n: n.Softsign(),
    "Tanhshrink": lambda n: n.Tanhshrink(),
    "Threshold": lambda n: n.Threshold(0.1, 2.0),
}
LAYERS = {
    "LayerNorm": (lambda n: n.LayerNorm(6), array(5, 6)),
    "LayerNorm of two": (lambda n: n.LayerNorm([4, 6], eps=0.1), array(5, 4, 6)),
    "LayerNorm without bias": (lambda n: n.LayerNorm(6, bias=False), array(5, 6)),
    "LayerNorm alone": (lambda n: n.LayerNorm(6, elementwise_affine=False), array(5, 6)),
    "RMSNorm": (lambda n: n.RMSNorm(6), array(5, 6)),
    "RMSNorm with eps": (lambda n: n.RMSNorm((4, 6), 0.1, False), array(5, 4, 6)),
    "GroupNorm": (lambda n: n.GroupNorm(3, 6), array(2, 6, 5)),
    "GroupNorm alone": (lambda n: n.GroupNorm(2, 6, affine=False), array(2, 6, 5, 3)),
    "BatchNorm1d": (lambda n: n.BatchNorm1d(6), array(7, 6)),
    "BatchNorm1d of signals": (lambda n: n.BatchNorm1d(6, momentum=None), array(3, 6, 5)),
    "BatchNorm2d": (lambda n: n.BatchNorm2d(4, 0.1, 0.3), array(3, 4, 5, 6)),
    "BatchNorm2d alone": (
        lambda n: n.BatchNorm2d(4, affine=False, track_running_stats=False),
        array(3, 4, 5, 6),
    ),
    "InstanceNorm1d": (lambda n: n.InstanceNorm1d(4), array(3, 4, 5)),
    "InstanceNorm1d of one": (lambda n: n.InstanceNorm1d(4, affine=True), array(4, 5)),
    "InstanceNorm2d": (
        lambda n: n.InstanceNorm2d(4, affine=True, track_running_stats=True),
        array(3, 4, 5, 6),
    ),
    "LocalResponseNorm": (lambda n: n.LocalResponseNorm(3, 0.1), array(2, 5, 4)),
    "Dropout of nothing": (lambda n: n.Dropout(0.0), array(3, 4)),
    "Embedding": (lambda n: n.Embedding(7, 3), np.array([[1, 6, 1], [0, 2, 5]])),
    "Embedding with padding": (lambda n: n.Embedding(7, 3, -1), np.array([6, 0, 6, 2])),
    "RNNCell": (lambda n: n.RNNCell(4, 3, nonlinearity="relu"), array(5, 4)),
    "GRUCell": (lambda n: n.GRUCell(4, 3), array(5, 4)),
    "GRUCell of one": (lambda n: n.GRUCell(4, 3, bias=False), array(4)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    assert_same(ACTIVATIONS[name], array(4, 6))


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, x = LAYERS[name]
    assert_same(make, x)


@pytest.mark.parametrize("name", [k for k in LAYERS if "BatchNorm" in k or "InstanceNorm" in k])
def test_running_statistics_and_evaluation(name):
    make, x = LAYERS[name]
    ours, theirs = twins(make)
    for factor in (1, 2, 3):
        ours(spool.tensor(x * factor))
        theirs(torch.tensor(x * factor))
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-5, 1e-6, err_msg=key)
    ours.eval(), theirs.eval()
    np.testing.assert_allclose(
        ours(spool.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), 2e-5, 1e-5
    )


@pytest.mark.parametrize("name", ["ReLU6", "SiLU", "ELU", "LeakyReLU", "Hardtanh", "Threshold"])
def test_activation_in_place(name):
    make = {
        "ReLU6": lambda n: n.ReLU6(True),
        "SiLU": lambda n: n.SiLU(True),
        "ELU": lambda n: n.ELU(inplace=True),
        "LeakyReLU": lambda n: n.LeakyReLU(inplace=True),
        "Hardtanh": lambda n: n.Hardtanh(inplace=True),
        "Threshold": lambda n: n.Threshold(0.1, 2.0, True),
    }[name]
    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    x = array(4, 3)
    leaf, other = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    inner = leaf * 1
    y, z = ours(inner), theirs(other * 1)
    assert y is inner
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), 1e-6, 1e-6)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), other.grad.numpy(), 1e-5, 1e-6)


def test_dropout_modules():
    spool.manual_seed(1)
    x = spool.ones(50, 40, 3)
    for module in (nn.Dropout(0.25), nn.Dropout1d(0.25)):
        y = module(x).numpy()
        assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
        assert abs((y == 0).mean() - 0.25) < 0.05
        module.eval()
        assert (module(x).numpy() == 1).all()
    y = nn.Dropout1d(0.5)(x).numpy()
    assert (y == y[..., :1]).all()
    y = nn.Dropout2d(0.5)(spool.ones(20, 30, 4, 5)).numpy()
    assert (y == y[..., :1, :1]).all() and 0.4 < (y == 0).mean() < 0.6
    y = nn.AlphaDropout(0.3)(spool.randn(400, 400)).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02
    assert repr(nn.Dropout(0.1)) == repr(torch.nn.Dropout(0.1))


# ---- recurrent

RECURRENT = {
    "RNN": lambda n: n.RNN(4, 3, 2, nonlinearity="relu"),
    "LSTM": lambda n: n.LSTM(4, 3),
    "LSTM, two layers, both ways": lambda n: n.LSTM(4, 3, 2, bidirectional=True),
    "LSTM, batch first": lambda n: n.LSTM(4, 3, 2, batch_first=True, bias=False),
    "GRU": lambda n: n.GRU(4, 3),
    "GRU, both ways": lambda n: n.GRU(4, 3, 2, bidirectional=True, batch_first=True),
}


def flat(value):
    return [value] if not isinstance(value, tuple) else [t for v in value for t in flat(v)]


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("shape", [(5, 2, 4), (5, 4)], ids=["batch", "one"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent(name, shape, given):
    ours, theirs = twins(RECURRENT[name])
    assert repr(ours) == repr(theirs)
    x = spool.tensor(array(*shape), requires_grad=True)
    t = torch.tensor(array(*shape), requires_grad=True)
    states = []
    if given:
        batch = [] if len(shape) == 2 else [5 if "first" in name or "GRU, both" in name else 2]
        count = ours.num_layers * (2 if ours.bidirectional else 1)
        h = [array(count, *batch, 3) * k for k in (1, 2)]
        pick = (lambda v: tuple(v)) if "LSTM" in name else (lambda v: v[0])
        states = [(pick([spool.tensor(v) for v in h]), pick([torch.tensor(v) for v in h]))]
    ys = flat(ours(x, *[s[0] for s in states]))
    ts = flat(theirs(t, *[s[1] for s in states]))
    for a, b in zip(ys, ts):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-5, 1e-6)
    sum((y * y).sum() for y in ys).backward()
    sum((y * y).sum() for y in ts).backward()
    for a, b in zip([x, *ours.parameters()], [t, *theirs.parameters()]):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-4, 1e-5)


def test_lstm_cell():
    ours, theirs = twins(lambda n: n.LSTMCell(4, 3))
    x, h, c = array(5, 4), array(5, 3), array(5, 3) * 2
    got = ours(spool.tensor(x), (spool.tensor(h), spool.tensor(c)))
    wanted = theirs(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    for a, b in zip([*got, *ours(spool.tensor(x))], [*wanted, *theirs(torch.tensor(x))]):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-5, 1e-6)


# ---- attention


def compare_attention(ours, theirs, arrays, **options):
    ours.train(False), theirs.train(False)
    xs = [spool.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    if len(arrays) == 1:
        xs, ts = xs * 3, ts * 3
    masks = {k: v for k, v in options.items() if isinstance(v, np.ndarray)}
    plain = {k: v for k, v in options.items() if k not in masks}
    got = ours(*xs, **plain, **{k: spool.tensor(v) for k, v in masks.items()})
    wanted = theirs(*ts, **plain, **{k: torch.tensor(v) for k, v in masks.items()})
    for a, b in zip(got, wanted):
        assert (a is None) == (b is None)
        if b is not None:
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 2e-5, 2e-6)
    got[0].pow(2).sum().backward()
    wanted[0].pow(2).sum().backward()
    for a, b in zip([*xs, *ours.parameters()], [*ts, *theirs.parameters()]):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-4, 2e-5)


MASK = np.triu(np.ones((5, 5), bool), 1)
PADDING = np.array([[False] * 5, [False, False, False, True, True]])


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn_mask": MASK},
        {"attn_mask": MASK, "is_causal": True},
        {"attn_mask": array(5, 5)},
        {"attn_mask": array(4, 5, 5)},
        {"key_padding_mask": PADDING},
        {"attn_mask": MASK, "key_padding_mask": PADDING},
    ],
    ids=["none", "bool", "causal", "float", "heads", "padding", "both"],
)
def test_multihead_attention(options, need_weights):
    ours, theirs = twins(lambda n: n.MultiheadAttention(6, 2, batch_first=True))
    compare_attention(ours, theirs, [array(2, 5, 6)], need_weights=need_weights, **options)


def test_multihead_attention_of_other_sizes():
    for make, arrays in [
        (
            lambda n: n.MultiheadAttention(6, 3, kdim=4, vdim=5),
            (array(3, 2, 6), array(7, 2, 4), array(7, 2, 5)),
        ),
        (
            lambda n: n.MultiheadAttention(6, 3, bias=False),
            (array(3, 2, 6), array(7, 2, 6), array(7, 2, 6) * 2),
        ),
        (lambda n: n.MultiheadAttention(6, 3), (array(3, 6), array(7, 6), array(7, 6) * 2)),
    ]:
        ours, theirs = twins(make)
        compare_attention(ours, theirs, arrays, average_attn_weights=False)
    with pytest.raises(ValueError, match="do not divide"):
        nn.MultiheadAttention(5, 2)


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_transformer_encoder(options):
    def make(n):
        layer = n.TransformerEncoderLayer(6, 2, 10, 0.0, batch_first=True, **options)
        extra = {} if n is nn else {"enable_nested_tensor": False}
        return n.TransformerEncoder(layer, 2, n.LayerNorm(6), **extra)

    ours, theirs = twins(make)
    x = array(2, 5, 6)
    a, b = spool.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = ours(a, spool.tensor(MASK), spool.tensor(PADDING))
    z = theirs(b, torch.tensor(MASK), torch.tensor(PADDING))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), 1e-4, 1e-5)
    y.pow(3).sum().backward(), z.pow(3).sum().backward()
    for p, q in zip([a, *ours.parameters()], [b, *theirs.parameters()]):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 2e-3, 2e-4)


# ---- losses

RNG = np.random.default_rng(5)
X, Y, Z = (RNG.normal(size=(4, 5)).astype(np.float32) for _ in range(3))
P, Q = (RNG.uniform(0.05, 0.95, (4, 5)).astype(np.float32) for _ in range(2))
SIGNS = np.sign(RNG.normal(size=(4, 5))).astype(np.float32)
CLASSES = np.array([0, 4, -100, 2])
WEIGHT = RNG.uniform(0.5, 2, 5).astype(np.float32)
IMAGES, LABELS = array(2, 5, 3, 4), RNG.integers(0, 5, (2, 3, 4))
SOFT = (P / P.sum(1, keepdims=True)).astype(np.float32)
LOSSES = {
    "nll_loss": [
        ((X, CLASSES), {}),
        ((X, CLASSES), {"weight": WEIGHT}),
        ((IMAGES, LABELS), {"weight": WEIGHT, "ignore_index": 2}),
    ],
    "cross_entropy": [
        ((X, CLASSES), {}),
        ((X, CLASSES), {"weight": WEIGHT, "label_smoothing": 0.1}),
        ((IMAGES, LABELS), {"label_smoothing": 0.2, "ignore_index": 4}),
        ((IMAGES, LABELS), {"weight": WEIGHT}),
        ((X, SOFT), {"weight": WEIGHT, "label_smoothing": 0.1}),
        ((X[0], SOFT[0]), {}),
        ((X[0], np.array(3)), {"label_smoothing": 0.1}),
    ],
    "binary_cross_entropy": [((P, Q), {}), ((P, Q), {"weight": WEIGHT})],
    "binary_cross_entropy_with_logits": [
        ((X * 30, Q), {}),
        ((X, Q), {"weight": WEIGHT, "pos_weight": WEIGHT * 2}),
    ],
    "kl_div": [((X, SOFT), {}), ((X, Y), {"log_target": True})],
    "poisson_nll_loss": [((X, P * 5), {}), ((P, Q * 5), {"log_input": False, "full": True})],
    "gaussian_nll_loss": [
        ((X, Y, P), {}),
        ((X, Y, P[:, 0]), {"full": True}),
        ((X, Y, P[:, :1] * 0), {"eps": 0.1}),
    ],
    "soft_margin_loss": [((X, SIGNS), {})],
    "multilabel_soft_margin_loss": [
        ((X, (SIGNS + 1) / 2), {}),
        ((X, (SIGNS + 1) / 2), {"weight": WEIGHT}),
    ],
    "multilabel_margin_loss": [
        ((X, np.array([[0, 3, -1, 2, 1], [-1, 0, 0, 0, 0], [4, 2, 1, 0, 3], [1, -1, 1, 1, 1]])), {})
    ],
    "multi_margin_loss": [
        ((X, np.array([0, 4, 1, 2])), {}),
        ((X, np.array([0, 4, 1, 2])), {"p": 2, "margin": 0.5, "weight": WEIGHT}),
    ],
    "hinge_embedding_loss": [((X, SIGNS), {"margin": 0.5})],
    "margin_ranking_loss": [((X, Y, SIGNS), {"margin": 0.1})],
    "cosine_embedding_loss": [((X, Y, SIGNS[:, 0]), {"margin": 0.1})],
    "triplet_margin_loss": [((X, Y, Z), {}), ((X, Y, Z), {"p": 1.0, "swap": True, "margin": 0.3})],
}
CASES = [(name, *case) for name, cases in LOSSES.items() for case in cases]


def differentiable(op, library, arrays, options, reduction):
    leaves = [library.tensor(a) for a in arrays]
    floating = [t.requires_grad_() for t, a in zip(leaves, arrays) if a.dtype == np.float32]
    if op.startswith("gaussian") and (arrays[2] == 0).all():
        floating = floating[:2]
    if op == "soft_margin_loss":  # PyTorch's has no derivative by the target
        floating[1].requires_grad_(False)
        floating = floating[:1]
    given = {k: library.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    module = nn.functional if library is spool else torch.nn.functional
    losses = getattr(module, op)(*leaves, reduction=reduction, **given)
    weights = library.tensor(np.linspace(1, 2, int(np.prod(losses.shape)), dtype=np.float32))
    grads = library.autograd.grad(
        (losses.reshape(-1) * weights.reshape(-1)).sum(), floating, allow_unused=True
    )
    return [losses, *(g for g in grads if g is not None)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "op, arrays, options", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
@pytest.mark.filterwarnings("ignore")
def test_loss(op, arrays, options, reduction):
    results = [differentiable(op, m, arrays, options, reduction) for m in (spool, torch)]
    for a, b in zip(*results):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 2e-5, 2e-6)


def test_loss_modules():
    pairs = [
        ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, (X, CLASSES)),
        ("NLLLoss", {"weight": WEIGHT}, (X, CLASSES)),
        ("BCELoss", {}, (P, Q)),
        ("BCEWithLogitsLoss", {"pos_weight": WEIGHT}, (X, Q)),
        ("KLDivLoss", {"reduction": "batchmean"}, (X, SOFT)),
        ("PoissonNLLLoss", {}, (X, P)),
        ("GaussianNLLLoss", {"full": True}, (X, Y, P)),
        ("SoftMarginLoss", {}, (X, SIGNS)),
        ("MultiLabelSoftMarginLoss", {}, (X, P)),
        ("MultiMarginLoss", {"p": 2}, (X, np.array([0, 4, 1, 2]))),
        ("HingeEmbeddingLoss", {}, (X, SIGNS)),
        ("MarginRankingLoss", {"margin": 0.2}, (X, Y, SIGNS)),
        ("CosineEmbeddingLoss", {}, (X, Y, SIGNS[:, 0])),
        ("TripletMarginLoss", {"swap": True}, (X, Y, Z)),
        ("CosineSimilarity", {"dim": 0}, (X, Y)),
        ("PairwiseDistance", {"p": 1.0, "keepdim": True}, (X, Y)),
    ]
    for name, options, arrays in pairs:
        values = []
        for library, module in ((spool, nn), (torch, torch.nn)):
            given = {
                k: library.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()
            }
            values.append(getattr(module, name)(**given)(*map(library.tensor, arrays)).numpy())
        np.testing.assert_allclose(*values, 2e-5, 2e-6, err_msg=name)


def test_mistakes_in_losses():
    x = spool.zeros(3, 2)
    for call, message in [
        (lambda: nn.functional.cross_entropy(x, spool.tensor([0, 2, 1])), "out of range"),
        (
            lambda: nn.functional.cross_entropy(x, spool.tensor([0, 1, 1]), label_smoothing=2),
            "between 0 and 1",
        ),
        (
            lambda: nn.functional.nll_loss(x, spool.tensor([0, 1, 1]), spool.ones(3)),
            "each of 2 classes",
        ),
        (lambda: nn.functional.binary_cross_entropy(x, x[:1]), "expected the same"),
        (lambda: nn.functional.kl_div(x, x, reduction="median"), "reduction"),
    ]:
        with pytest.raises((spool.SpoolError, ValueError, IndexError), match=message):
            call()


def test_states_go_to_pytorch_and_back():
    ours, theirs = twins(lambda n: n.Sequential(n.BatchNorm1d(4), n.Linear(4, 2), n.LayerNorm(2)))
    ours(spool.tensor(array(5, 4)))
    theirs.load_state_dict({k: to_torch(v) for k, v in ours.state_dict().items()})
    ours.load_state_dict({k: to_spool(v) for k, v in theirs.state_dict().items()})
    assert ours[0].num_batches_tracked.item() == 1
