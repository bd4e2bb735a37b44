"""Attention against PyTorch: layouts, masks, sizes beyond a tile, all orders of derivatives, bits, memory."""

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import spool

RNG = np.random.default_rng(11)


def both(*shape, dtype=np.float32):
    x = RNG.normal(size=shape).astype(dtype)
    return spool.tensor(x), torch.from_numpy(x.copy())


def close(got, wanted, tolerance=2e-5):
    np.testing.assert_allclose(
        got.detach().numpy(), wanted.detach().numpy(), rtol=tolerance, atol=tolerance
    )


def attend(library, q, k, v, **options):
    if library is spool:
        return spool.scaled_dot_product_attention(q, k, v, **options)
    return TF.scaled_dot_product_attention(q, k, v, **options)


def masks(queries, keys):
    some = RNG.random((queries, keys)) < 0.7
    some[:, 0] = True
    return {
        "none": None,
        "bool": some,
        "heads": RNG.random((3, 1, keys)) < 0.9,
        "float": RNG.normal(size=(queries, keys)).astype(np.float32),
        "batch": RNG.normal(size=(2, 1, 1, keys)).astype(np.float32),
    }


@pytest.mark.parametrize("kind", ["none", "bool", "heads", "float", "batch", "causal"])
@pytest.mark.parametrize("queries, keys", [(5, 7), (130, 130), (65, 700), (300, 40)])
def test_values_and_gradients_are_torchs(kind, queries, keys):
    pairs = [both(2, 3, queries, 8), both(2, 3, keys, 8), both(2, 3, keys, 5)]
    gy = both(2, 3, queries, 5)
    mask = masks(queries, keys).get(kind)
    results = []
    for i, library in enumerate((spool, torch)):
        leaves = [p[i].requires_grad_() for p in pairs]
        options = {"is_causal": kind == "causal"}
        if mask is not None:
            options["attn_mask"] = library.tensor(mask)
        y = attend(library, *leaves, **options)
        results.append([y, *library.autograd.grad(y, leaves, gy[i])])
    for a, b in zip(*results):
        close(a, b)


def test_heads_that_stand_behind_positions():
    """(B, L, H, E) transposed, as linear layers leave them."""
    pairs = [both(2, 70, 4, 8) for _ in range(3)]
    ours, theirs = ([p[i].transpose(1, 2) for p in pairs] for i in (0, 1))
    close(attend(spool, *ours), attend(torch, *theirs))
    reversed_rows = [spool.flip(t, [2]) for t in ours]
    close(attend(spool, *reversed_rows), attend(torch, *[t.flip(2) for t in theirs]))
    columns = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in ours]
    close(attend(spool, *columns), attend(torch, *theirs))


def test_a_query_without_keys_gives_zeros():
    q, k, v = (both(1, 1, 3, 4)[0].requires_grad_() for _ in range(3))
    mask = spool.tensor([[True, True, False], [False, False, False], [False, True, True]])
    y = attend(spool, q, k, v, attn_mask=mask)
    grads = spool.autograd.grad(y.sum(), [q, k, v])
    assert (y[0, 0, 1].detach().numpy() == 0).all()
    assert (grads[0][0, 0, 1].numpy() == 0).all()
    assert all(np.isfinite(g.numpy()).all() for g in grads)
    dropped = attend(spool, q, k, v, attn_mask=mask, dropout_p=1e-9)
    close(dropped, torch.from_numpy(y.detach().numpy()))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_leading_dimensions(lead):
    pairs = [both(*lead, 4, 6), both(*lead, 5, 6), both(*lead, 5, 6), both(4, 5)]
    ours, theirs = ([p[i] for p in pairs] for i in (0, 1))
    close(
        attend(spool, *ours[:3], attn_mask=ours[3], scale=0.2),
        attend(torch, *theirs[:3], attn_mask=theirs[3], scale=0.2),
    )
    if lead:
        ours[0], theirs[0] = ours[0][:1], theirs[0][:1]
        close(attend(spool, *ours[:3]), attend(torch, *theirs[:3]))


def test_grouped_queries():
    pairs = [both(2, 6, 70, 8), both(2, 2, 90, 8), both(2, 2, 90, 8)]
    gy, results = both(2, 6, 70, 8), []
    for i, library in enumerate((spool, torch)):
        leaves = [p[i].requires_grad_() for p in pairs]
        y = attend(library, *leaves, enable_gqa=True)
        results.append([y, *library.autograd.grad(y, leaves, gy[i])])
    for a, b in zip(*results):
        close(a, b)


@pytest.mark.parametrize("causal", [False, True])
def test_third_order_is_the_definitions(causal):
    pairs = [both(1, 2, 4, 3, dtype=np.float64) for _ in range(3)] + [both(4, 4, dtype=np.float64)]
    directions = [both(1, 2, 4, 3, dtype=np.float64) for _ in range(3)]

    def by_definition(q, k, v, mask):
        scores = q @ k.transpose(2, 3) / 3**0.5 + mask
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).tril() == 0, -np.inf)
        return scores.softmax(-1) @ v

    def ours(q, k, v, mask):
        return spool.attention(q, k, v, causal, 3**-0.5, mask)[0]

    def third(library, function, i):
        leaves = [p[i].clone().requires_grad_() for p in pairs]
        value = (function(*leaves) ** 2 * directions[0][i]).sum()
        for d in directions[1:]:
            grads = library.autograd.grad(value, leaves, create_graph=True)
            value = sum((g * d[i]).sum() for g in grads[:3]) + (grads[3] ** 2).sum()
        return library.autograd.grad(value, leaves)

    for a, b in zip(third(spool, ours, 0), third(torch, by_definition, 1)):
        close(a, b, 1e-9)


def test_logsumexp_has_derivatives():
    pairs = [both(2, 2, 5, 3, dtype=np.float64) for _ in range(2)]
    results = []
    for i, library in enumerate((spool, torch)):
        q, k = (p[i].requires_grad_() for p in pairs)
        if library is spool:
            lse = spool.attention(q, k, k, False, 0.7)[1]
        else:
            lse = torch.logsumexp(q @ k.transpose(2, 3) * 0.7, -1)
        first = library.autograd.grad((lse**2).sum(), [q, k], create_graph=True)
        value = sum((g**2).sum() for g in first)
        results.append([lse, *first, *library.autograd.grad(value, [q, k])])
    for a, b in zip(*results):
        close(a, b, 1e-9)


def test_bits_do_not_depend_on_layout_and_threads():
    q, k, v, gy = (both(2, 4, 150, 8)[0] for _ in range(4))
    other = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    results, threads = [], spool.get_num_threads()
    try:
        for count, values in [(1, (q, k, v)), (2, (q, k, v)), (2, other)]:
            spool.set_num_threads(count)
            leaves = [t.detach().requires_grad_() for t in values]
            y = attend(spool, *leaves, is_causal=True)
            grads = spool.autograd.grad(y, leaves, gy)
            results.append([t.detach().numpy().tobytes() for t in (y, *grads)])
    finally:
        spool.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


def test_dropout_keeps_the_mean():
    q, k = both(1, 1, 40, 4)[0], both(1, 1, 50, 4)[0]
    v = spool.ones(1, 1, 50, 2)
    spool.manual_seed(3)
    y = attend(spool, q, k, v, dropout_p=0.5).numpy()
    assert y.std() > 0.01 and abs(y.mean() - 1) < 0.1


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (((2, 3), (2, 4), (2, 4)), {}, "last sizes"),
        (((1, 2, 3, 4), (1, 3, 5, 4), (1, 3, 5, 4)), {}, "do not broadcast"),
        (((1, 3, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)), {"enable_gqa": True}, "do not divide"),
        (((2, 3), (4, 3), (4, 3)), {"is_causal": True, "attn_mask": True}, "both given"),
        (((2, 3), (4, 3), (5, 3)), {}, "numbers of heads or keys"),
        (((2, 3), (4, 3), (4, 3)), {"dropout_p": 2.0}, "probability"),
    ],
)
def test_mistakes_are_named(shapes, options, message):
    if "attn_mask" in options:
        options = {**options, "attn_mask": spool.zeros(2, 4)}
    with pytest.raises((spool.SpoolError, ValueError), match=message):
        attend(spool, *[spool.zeros(*s) for s in shapes], **options)
