"""``gradcheck`` and ``gradgradcheck``: derivatives compared with differences of values.

The Jacobian of an output by an input is a float64 tensor with a row an element of the input and a column an element of the
output. A complex element counts as two real ones, real part first: so functions of complex numbers need no rules of their own,
and gradients that are right only for holomorphic functions are found.
"""

import warnings

from .. import _C

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

_BATCH = 3  # directions that a batched derivative is tried on


class GradcheckError(_C.SpoolError):
    """What :func:`gradcheck` found wrong."""


# ---- tensors as rows of real numbers ---------------------------------------------------------------------------------------


def _inexact(value):
    return isinstance(value, _C.Tensor) and (value.is_floating_point() or value.is_complex())


def _row(tensor):
    """The elements as float64, of complex ones both parts."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = _C.view_as_real(tensor.contiguous())
    return tensor.reshape(-1).to(_C.float64)


def _width(tensor):
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def _unrow(row, like):
    """The tensor of like's shape and dtype that has this row."""
    if like.is_complex():
        row = _C.view_as_complex(row.reshape(-1, 2))
    return row.reshape(like.shape).to(like.dtype)


def _rows_or_zeros(gradients, inputs):
    return [
        _C.zeros(_width(x), dtype=_C.float64) if g is None else _row(g)
        for g, x in zip(gradients, inputs)
    ]


def _unit_rows(count):
    return _C.eye(count, dtype=_C.float64)


class _Draw:
    """Numbers of a stream of our own: equal ones in every check, and none that the function would miss."""

    def __init__(self):
        self.generator = _C.Generator().manual_seed(0)

    def like(self, tensor, contiguous=True):
        row = _C.randn(_width(tensor), dtype=_C.float64, generator=self.generator)
        made = _unrow(row, tensor)
        if contiguous or tensor.numel() < 2:
            return made
        return _C.stack([made, made], -1).select(-1, 0)

    def direction(self, tensor):
        """A row of length one."""
        row = _C.randn(_width(tensor), dtype=_C.float64, generator=self.generator)
        return row / (row * row).sum().sqrt() if row.numel() else row


# ---- one check -------------------------------------------------------------------------------------------------------------


class _Check:
    """A function, the inputs that it is differentiated by, and how close is close enough."""

    def __init__(self, func, inputs, eps, atol, rtol, nondet_tol):
        self.func, self.inputs = func, inputs
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.places = [i for i, x in enumerate(inputs) if _inexact(x) and x.requires_grad]
        self.wanted = [inputs[i] for i in self.places]
        self.draw = _Draw()

    def outputs(self, inputs=None):
        """The results that are numbers, by their place among all."""
        out = self.func(*(self.inputs if inputs is None else inputs))
        out = out if isinstance(out, (tuple, list)) else (out,)
        return {i: o for i, o in enumerate(out) if _inexact(o)}

    def differentiable(self):
        return {i: o for i, o in self.outputs().items() if o.requires_grad}

    def rows(self):
        """Rows of the results, by place; copies, as a result may be an input."""
        return {i: _row(o).clone() for i, o in self.outputs().items()}

    # Numerical: the inputs themselves are moved, which closures see as well.

    def slope(self, move, back):
        """(f(x + eps) - f(x - eps)) / (2 eps) by place of the result; move(step) returns the step that was taken."""
        try:
            up = move(self.eps)
            plus = self.rows()
            down = move(-self.eps)
            minus = self.rows()
        finally:
            back()
        return {i: (plus[i] - minus[i]) / (up - down) for i in plus}

    def numerical(self, x):
        """By place of the result: its Jacobian by x."""
        slopes = []
        parts = (1, 1j) if x.is_complex() else (1,)
        for at in _indices(x.shape):
            old = x[at].item()
            for part in parts:

                def move(step, at=at, old=old, part=part):
                    _write(x, at, old + step * part)
                    taken = x[at].item() - old
                    return taken.real if part == 1 else taken.imag

                slopes.append(self.slope(move, lambda at=at, old=old: _write(x, at, old)))
        if not slopes:
            return {i: _C.zeros(0, len(r), dtype=_C.float64) for i, r in self.rows().items()}
        return {i: _C.stack([s[i] for s in slopes]) for i in slopes[0]}

    def numerical_along(self, x, direction):
        """The same times a direction: one row a result."""
        old = x.detach().clone()

        def move(step):
            with _C.no_grad():
                x.copy_(old + _unrow(direction * step, x))
            return step

        def back():
            with _C.no_grad():
                x.copy_(old)

        return self.slope(move, back)

    # Analytical.

    def pull(self, outputs, weights):
        """The gradients of the wanted inputs for weights by place; a place without one stays undefined."""
        gradients = _C.grad(
            [outputs[i] for i in weights],
            self.wanted,
            list(weights.values()),
            retain_graph=True,
            allow_unused=True,
        )
        for k, (g, x) in enumerate(zip(gradients, self.wanted)):
            if g is not None and g.shape != x.shape:
                raise GradcheckError(
                    f"Analytical gradient has incorrect size: {tuple(g.shape)} for input {self.places[k]} of shape "
                    f"{tuple(x.shape)}"
                )
        return gradients

    def weights(self, outputs, place, row):
        """The weight of one result, and zeros for all others."""
        return {
            i: _unrow(row, o) if i == place else _C.zeros_like(o.detach())
            for i, o in outputs.items()
        }

    def pull_row(self, outputs, place, row):
        """The derivative of one result, weighted, by each wanted input; run twice to see that it is the same."""
        weights = self.weights(outputs, place, row)
        runs = [_rows_or_zeros(self.pull(outputs, weights), self.wanted) for _ in range(2)]
        for k, (first, again) in enumerate(zip(*runs)):
            apart = _largest(first - again)
            if apart > self.nondet_tol:
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times "
                    f"gives different values: for output {place} with respect to input {self.places[k]} they are "
                    f"{apart:.3g} apart; nondet_tol is {self.nondet_tol}"
                )
        return runs[0]

    def analytical(self, outputs, place):
        """The Jacobians of one result by every wanted input."""
        width = _width(outputs[place])
        if not width:
            return [_C.zeros(_width(x), 0, dtype=_C.float64) for x in self.wanted]
        columns = [self.pull_row(outputs, place, row) for row in _unit_rows(width)]
        return [_C.stack(c, 1) for c in zip(*columns)]

    def push(self, k, row, others=False):
        """Forward mode: the derivatives of the results along `row` of the k-th wanted input, as rows by place."""
        from . import forward_ad

        with forward_ad.dual_level():
            inputs = list(self.inputs)
            for j, (place, x) in enumerate(zip(self.places, self.wanted)):
                inputs[place] = primal = x.detach()
                if j == k or others:
                    way = _unrow(row, x) if j == k else _C.zeros_like(primal)
                    inputs[place] = forward_ad.make_dual(primal, way)
            pairs = {i: forward_ad.unpack_dual(o) for i, o in self.outputs(inputs).items()}
        return {
            i: _C.zeros(_width(p.primal), dtype=_C.float64)
            if p.tangent is None
            else _row(p.tangent)
            for i, p in pairs.items()
        }

    def close(self, got, wanted, room=1.0):
        """Whether all are within atol * room + rtol * wanted of each other; NaN is not."""
        return bool(((got - wanted).abs() <= self.atol * room + self.rtol * wanted.abs()).all())


def _indices(shape):
    """Every index of a tensor of that shape, the last dimension fastest."""
    at = [()]
    for size in shape:
        at = [(*a, i) for a in at for i in range(size)]
    return at


def _write(x, at, value):
    with _C.no_grad():
        x[at] = value


def _largest(row):
    return float(row.abs().max()) if row.numel() else 0.0


# ---- what is wrong, in words -----------------------------------------------------------------------------------------------


def _element(tensor, number):
    """Which element, and of complex ones which part, stands at that place of the row."""
    part = ""
    if tensor.is_complex():
        part, number = ("real", "imaginary")[number % 2] + " part of ", number // 2
    at = []
    for size in reversed(tuple(tensor.shape)):
        at.append(number % size)
        number //= size
    return f"the {part}element {at[::-1]}" if at else f"the {part}only element"


def _mismatch(check, how, place, k, output, numerical, analytical):
    """The error that shows both Jacobians."""
    apart = (analytical - numerical).abs()
    excess = (apart - check.rtol * numerical.abs()).reshape(-1)
    nan = excess.isnan()
    worst = int(nan.to(_C.int64).argmax() if bool(nan.any()) else excess.argmax())
    row, column = divmod(worst, numerical.shape[1])
    pair = [float(j[row, column]) for j in (numerical, analytical)]
    x = check.wanted[k]
    notes = "".join(
        f"\n{lines} alternate between the real and imaginary parts of the {what}."
        for lines, what, t in (("Rows", "input", x), ("Columns", "output", output))
        if t.is_complex()
    )
    return GradcheckError(
        f"Jacobian {how}mismatch for output {place} with respect to input {check.places[k]},\n"
        f"numerical:{numerical}\nanalytical:{analytical}\n"
        f"The largest difference is {abs(pair[0] - pair[1]):.6g}, where {_element(output, column)} of the output is "
        f"differentiated by {_element(x, row)} of the input: numerical {pair[0]:.6g}, analytical {pair[1]:.6g} "
        f"(atol={check.atol}, rtol={check.rtol}).{notes}"
    )


FORWARD = "computed with forward mode "


# ---- the parts of a check --------------------------------------------------------------------------------------------------


def _check_inputs(check):
    if not check.wanted:
        raise ValueError(
            "gradcheck: no input is a floating point or complex Tensor that requires grad; set requires_grad=True on what "
            "the function is to be differentiated by"
        )
    for place, x in zip(check.places, check.wanted):
        if x.dtype not in (_C.float64, _C.complex128):
            warnings.warn(
                f"Input #{place} requires gradient and is {x.dtype}, not double precision floating point or complex: "
                "differences of its values have few digits, and this check will likely fail",
                stacklevel=4,
            )
        if any(s == 0 and n > 1 for s, n in zip(x.stride(), x.shape)):
            raise ValueError(
                f"gradcheck: input {place} is expanded, so that elements share memory and cannot be moved one by one; "
                "give its .contiguous() copy"
            )


def _check_without_outputs(check):
    """No result requires grad: then none may depend on the inputs."""
    for k, x in enumerate(check.wanted):
        for place, jacobian in check.numerical(x).items():
            if not check.close(jacobian * 0, jacobian):
                raise GradcheckError(
                    f"Numerical gradient for function expected to be zero: output {place} does not require grad, but "
                    f"changes with input {check.places[k]}:\n{jacobian}\n"
                    "Something between them, such as detach() or no_grad(), took the derivative away."
                )


# What the tape saved must not be moved: outputs to differentiate are computed after the numerical part.


def _check_slow(check, backward, forward):
    numerical = [check.numerical(x) for x in check.wanted]
    outputs = check.differentiable()
    for place, output in outputs.items() if backward else ():
        for k, jacobian in enumerate(check.analytical(outputs, place)):
            if not check.close(jacobian, numerical[k][place]):
                raise _mismatch(check, "", place, k, output, numerical[k][place], jacobian)
    for k, x in enumerate(check.wanted) if forward else ():
        rows = [check.push(k, row) for row in _unit_rows(_width(x))]
        for place, output in outputs.items() if rows else ():
            jacobian = _C.stack([r[place] for r in rows])
            if not check.close(jacobian, numerical[k][place]):
                raise _mismatch(check, FORWARD, place, k, output, numerical[k][place], jacobian)


def _check_fast(check, backward, forward):
    """The same Jacobians between random directions; only when these differ are they computed whole."""
    ways = [check.draw.direction(x) for x in check.wanted]
    numerical = [check.numerical_along(x, way) for x, way in zip(check.wanted, ways)]
    outputs = check.differentiable()
    weights = {i: check.draw.direction(o) for i, o in outputs.items()}
    pulled = {i: check.pull_row(outputs, i, w) for i, w in weights.items()} if backward else {}
    for k, way in enumerate(ways):
        found = [("", i, (pulled[i][k] * way).sum()) for i in pulled]
        if forward:
            pushed = check.push(k, way)
            found += [(FORWARD, i, (pushed[i] * w).sum()) for i, w in weights.items()]
        for how, i, value in found:
            wanted = (numerical[k][i] * weights[i]).sum()
            room = float(way.abs().sum() * weights[i].abs().sum())
            if check.close(value, wanted, max(room, 1.0)):
                continue
            _check_slow(check, how == "", how != "")
            raise GradcheckError(
                f"Jacobian {how}mismatch for output {i} with respect to input {check.places[k]}, between a random "
                f"direction and random weights: numerical {float(wanted)}, analytical {float(value)}; element by element "
                "the Jacobians are within the tolerance"
            )


def _check_dtypes(check, outputs):
    weights = {i: check.draw.like(o) for i, o in outputs.items()}
    for k, (g, x) in enumerate(zip(check.pull(outputs, weights), check.wanted)):
        if g is not None and g.dtype != x.dtype:
            raise GradcheckError(
                f"Gradient has dtype mismatch: {g.dtype} for input {check.places[k]}, which is {x.dtype}"
            )


def _check_undefined(check, outputs):
    """Weights of zero yield zeros, and an output without a weight counts as one with zeros."""
    zeros = {i: _C.zeros_like(o.detach()) for i, o in outputs.items()}
    for k, row in enumerate(_rows_or_zeros(check.pull(outputs, zeros), check.wanted)):
        if _largest(row) != 0:
            raise GradcheckError(
                f"backward not multiplied by grad_output: with zeros for all outputs the gradient of input "
                f"{check.places[k]} is not zero"
            )
    for place, output in outputs.items() if len(outputs) > 1 else ():
        row = check.draw.direction(output)
        whole = check.pull(outputs, check.weights(outputs, place, row))
        alone = check.pull(outputs, {place: _unrow(row, output)})
        pairs = zip(*(_rows_or_zeros(g, check.wanted) for g in (whole, alone)))
        for k, (a, b) in enumerate(pairs):
            if not check.close(b, a):
                raise GradcheckError(
                    "Expected backward function to handle undefined output grads as zeros: the gradient of input "
                    f"{check.places[k]} for output {place} alone differs from that with zeros for the others"
                )


def _check_undefined_forward(check):
    for k, x in enumerate(check.wanted) if len(check.wanted) > 1 else ():
        row = check.draw.direction(x)
        alone, whole = check.push(k, row), check.push(k, row, others=True)
        for place in whole:
            if not check.close(alone[place], whole[place]):
                raise GradcheckError(
                    "Expected forward mode to handle undefined tangents as zeros: the derivative of output "
                    f"{place} along input {check.places[k]} alone differs from that with zeros for the others"
                )


def _compare_batched(check, what, got, rows):
    for name, value, wanted in zip(what, got, zip(*rows)):
        for one, other in zip(value, wanted):
            if not check.close(_row(one), other):
                raise GradcheckError(
                    f"{name} computed under vmap, for all weights at once, differs from that computed for one after the "
                    f"other:\n{_row(one)}\n{other}"
                )


def _check_batched(check, outputs):
    from ..func import vmap

    names = [f"The gradient of input {p}" for p in check.places]
    for output in outputs.values():
        weights = [check.draw.like(output) for _ in range(_BATCH)]

        def pull(weight, output=output):
            return _C.grad(output, check.wanted, weight, retain_graph=True, materialize_grads=True)

        rows = [list(map(_row, pull(w))) for w in weights]
        _compare_batched(check, names, vmap(pull)(_C.stack(weights)), rows)


def _check_batched_forward(check):
    from ..func import vmap
    from . import forward_ad

    for place, x in zip(check.places, check.wanted):
        ways = [check.draw.like(x) for _ in range(_BATCH)]

        def push(way, place=place, x=x):
            with forward_ad.dual_level():
                inputs = [i.detach() if isinstance(i, _C.Tensor) else i for i in check.inputs]
                inputs[place] = forward_ad.make_dual(x.detach(), way)
                pairs = [forward_ad.unpack_dual(o) for o in check.outputs(inputs).values()]
            return tuple(_C.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs)

        rows = [list(map(_row, push(w))) for w in ways]
        names = [f"The derivative of output {i} along input {place}" for i in range(len(rows[0]))]
        _compare_batched(check, names, vmap(push)(_C.stack(ways)), rows)


# ---- the interface ---------------------------------------------------------------------------------------------------------


def _tuple_of(inputs):
    return (inputs,) if isinstance(inputs, _C.Tensor) else tuple(inputs)


def _run(check, fast, backward, forward, dtypes, undefined, batched, batched_forward):
    _check_inputs(check)
    if not check.differentiable():
        return _check_without_outputs(check)
    (_check_fast if fast else _check_slow)(check, backward, forward)
    outputs = check.differentiable()
    if dtypes:
        _check_dtypes(check, outputs)
    if undefined and backward:
        _check_undefined(check, outputs)
    if undefined and forward:
        _check_undefined_forward(check)
    if batched:
        _check_batched(check, outputs)
    if batched_forward:
        _check_batched_forward(check)
    return None


@_C._boundary
def gradcheck(
    func,
    inputs,
    *,
    eps=1e-6,
    atol=1e-5,
    rtol=1e-3,
    raise_exception=True,
    nondet_tol=0.0,
    check_undefined_grad=True,
    check_grad_dtypes=False,
    check_batched_grad=False,
    check_batched_forward_grad=False,
    check_forward_ad=False,
    check_backward_ad=True,
    fast_mode=False,
    masked=None,
):
    """Whether the derivatives of ``func`` are those that differences of its values show.

    Parameters
    ----------
    func : callable
        Takes the inputs and returns a Tensor or a tuple of them. It must give equal results when it is called again (seed
        the random numbers in it), and may use the inputs through a closure.
    inputs : Tensor or tuple
        Those that are floating point or complex and require grad are differentiated by; float64 and complex128, or
        differences have too few digits. Other values are passed on. They are moved in place, and put back.
    eps : float
        How far they are moved, to both sides.
    atol, rtol : float
        Derivatives may differ by ``atol + rtol * |numerical|``.
    raise_exception : bool
        False: return False where an error would be raised for what is wrong.
    nondet_tol : float
        How much two runs of backward may differ.
    check_undefined_grad : bool
        Also compare outputs without a gradient, and inputs without a tangent, with zeros for these.
    check_grad_dtypes : bool
        A gradient must have its input's dtype.
    check_batched_grad, check_batched_forward_grad : bool
        Also compare several gradients (tangents) at once, under ``vmap``, with one after the other.
    check_forward_ad, check_backward_ad : bool
        The modes that are checked.
    fast_mode : bool
        Compare along one random direction instead of element by element.
    masked : bool, optional
        About sparse tensors, which there are none of; has no effect.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        Derivatives differ: the message shows both Jacobians, and where they differ most.
    ValueError
        No input requires grad, or one shares memory with itself.

    >>> import spool
    >>> x = spool.tensor([0.5, 2.0], dtype=spool.float64, requires_grad=True)
    >>> spool.autograd.gradcheck(spool.tanh, x)
    True
    >>> spool.autograd.gradcheck(lambda x: x * x.detach(), x, raise_exception=False)
    False
    """
    if not (check_forward_ad or check_backward_ad):
        raise ValueError("gradcheck: set check_forward_ad or check_backward_ad; both are False")
    if check_batched_grad and not check_backward_ad:
        raise ValueError("gradcheck: check_batched_grad needs check_backward_ad=True")
    if check_batched_forward_grad and not check_forward_ad:
        raise ValueError("gradcheck: check_batched_forward_grad needs check_forward_ad=True")
    check = _Check(func, _tuple_of(inputs), eps, atol, rtol, nondet_tol)
    try:
        _run(
            check,
            fast_mode,
            check_backward_ad,
            check_forward_ad,
            check_grad_dtypes,
            check_undefined_grad,
            check_batched_grad,
            check_batched_forward_grad,
        )
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _gradients_of(func, places, count, in_levels):
    """The function of (inputs, weights of the differentiable outputs) that yields the gradients."""

    def by_tape(*args):
        inputs, weights = args[:-count], args[-count:]
        outputs = [o for o in _tuple_of(func(*inputs)) if _inexact(o) and o.requires_grad]
        wanted = [inputs[p] for p in places]
        found = _C.grad(outputs, wanted, weights, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    def by_levels(*args):
        from ..func import vjp

        inputs, weights = args[:-count], args[-count:]

        def chosen(*values):
            full = list(inputs)
            for place, value in zip(places, values):
                full[place] = value
            outputs = [o for o in _tuple_of(func(*full)) if _inexact(o) and o.requires_grad]
            return tuple(outputs)

        return vjp(chosen, *(inputs[p] for p in places))[1](tuple(weights))

    return by_levels if in_levels else by_tape


@_C._boundary
def gradgradcheck(
    func,
    inputs,
    grad_outputs=None,
    *,
    eps=1e-6,
    atol=1e-5,
    rtol=1e-3,
    gen_non_contig_grad_outputs=False,
    raise_exception=True,
    nondet_tol=0.0,
    check_undefined_grad=True,
    check_grad_dtypes=False,
    check_batched_grad=False,
    check_fwd_over_rev=False,
    check_rev_over_rev=True,
    fast_mode=False,
    masked=False,
):
    """Whether the second derivatives of ``func`` are those that differences of its gradients show.

    The function that is checked takes ``inputs`` and ``grad_outputs`` to the gradients of ``inputs``; so the gradients must
    be right as well for the result to mean something: use it beside :func:`gradcheck`, whose parameters are the same.

    Parameters
    ----------
    grad_outputs : Tensor or tuple of Tensor, optional
        The weights of the outputs that require grad. Random numbers by default, the same at every call.
    gen_non_contig_grad_outputs : bool
        Draw them as tensors with gaps in memory.
    check_fwd_over_rev, check_rev_over_rev : bool
        The modes in which gradients are differentiated. In forward mode, ``func`` must not reach its inputs by a closure.

    Raises
    ------
    GradcheckError
        Second derivatives differ, as for :func:`gradcheck`.

    >>> import spool
    >>> x = spool.tensor([0.5, 2.0], dtype=spool.float64, requires_grad=True)
    >>> spool.autograd.gradgradcheck(lambda x: x**3, x, check_fwd_over_rev=True)
    True
    """
    if not (check_fwd_over_rev or check_rev_over_rev):
        raise ValueError(
            "gradgradcheck: set check_fwd_over_rev or check_rev_over_rev; both are False"
        )
    inputs = _tuple_of(inputs)
    places = [i for i, x in enumerate(inputs) if _inexact(x) and x.requires_grad]
    outputs = [o for o in _tuple_of(func(*inputs)) if _inexact(o) and o.requires_grad]
    if not outputs:
        return gradcheck(func, inputs, eps=eps, atol=atol, raise_exception=raise_exception)
    if grad_outputs is None:
        draw = _Draw()
        weights = [draw.like(o, not gen_non_contig_grad_outputs) for o in outputs]
        weights = tuple(w.requires_grad_() for w in weights)
    else:
        weights = _tuple_of(grad_outputs)
    if len(weights) != len(outputs):
        raise ValueError(
            f"gradgradcheck: {len(weights)} grad_outputs for {len(outputs)} outputs that require grad"
        )
    options = {
        "eps": eps,
        "atol": atol,
        "rtol": rtol,
        "raise_exception": raise_exception,
        "nondet_tol": nondet_tol,
        "check_undefined_grad": check_undefined_grad,
        "check_grad_dtypes": check_grad_dtypes,
        "fast_mode": fast_mode,
    }
    both = inputs + weights
    if check_rev_over_rev:
        by_tape = _gradients_of(func, places, len(weights), False)
        if not gradcheck(by_tape, both, check_batched_grad=check_batched_grad, **options):
            return False
    if not check_fwd_over_rev:
        return True
    by_levels = _gradients_of(func, places, len(weights), True)
    return gradcheck(by_levels, both, check_forward_ad=True, check_backward_ad=False, **options)
