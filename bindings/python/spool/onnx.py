"""Graphs as ONNX files (opset 21), and back.

>>> import spool
>>> spool.onnx.save(lambda x: spool.tanh(x) * 2.0, (spool.tensor([0.0, 1.0]),), "/tmp/double_tanh.onnx")
>>> spool.onnx.load("/tmp/double_tanh.onnx")(spool.tensor([0.0, 1.0]))
tensor([0.0000, 1.5232])
"""

import inspect
import os

from . import _C

__all__ = ["Model", "load", "save"]


class Model:
    """A loaded graph: call it with as many tensors as it has inputs.

    Returns one tensor, or a tuple of them when the graph has several outputs. Raises ShapeError or DTypeError when an
    input does not have the shape or dtype that the file says.
    """

    def __init__(self, graph):
        self._graph = graph

    def __call__(self, *inputs):
        outputs = self._graph.run(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def num_inputs(self):
        """How many tensors a call takes."""
        return self._graph.num_inputs

    def vjp(self, *examples):
        """The gradient, as a graph of its own, by the formulas that eager code is differentiated with.

        Parameters
        ----------
        examples : Tensor
            One an input, of its shape and dtype, or none: zeros. The graph runs on them once, so they matter where an op checks
            values, such as indices.

        Returns
        -------
        Model
            Takes the inputs and then a cotangent for each floating output; returns the outputs and then the gradient of each
            floating input (zeros where nothing depends on it). It can be run, saved and differentiated like any other.

        Raises
        ------
        ShapeError
            An example does not have its input's shape or dtype.

        Examples
        --------
        >>> import spool
        >>> spool.onnx.save(lambda x: x * x, (spool.zeros(2),), "/tmp/square.onnx")
        >>> square = spool.onnx.load("/tmp/square.onnx")
        >>> square.vjp()(spool.tensor([1.0, 3.0]), spool.tensor([1.0, 10.0]))
        (tensor([1., 9.]), tensor([ 2., 60.]))
        """
        return Model(self._graph.vjp(*examples))

    def jvp(self, *examples):
        """The forward derivative, as a graph of its own.

        Parameters and errors are those of :meth:`vjp`.

        Returns
        -------
        Model
            Takes the inputs and then a tangent for each floating input; returns the outputs and then the tangent of each
            floating output.

        Examples
        --------
        >>> import spool
        >>> spool.onnx.save(lambda x: x * x, (spool.zeros(2),), "/tmp/square.onnx")
        >>> square = spool.onnx.load("/tmp/square.onnx")
        >>> square.jvp()(spool.tensor([1.0, 3.0]), spool.tensor([1.0, 10.0]))
        (tensor([1., 9.]), tensor([ 2., 60.]))
        """
        return Model(self._graph.jvp(*examples))

    def save(self, path):
        """Writes the graph as an ONNX file."""
        self._graph.save_onnx(os.fspath(path))

    def __str__(self):
        return self._graph.text()


def capture(function, inputs):
    """Records ``function(*inputs)`` as one graph.

    Parameters
    ----------
    function : callable
        Takes the tensors of `inputs`, returns a tensor or a tuple of tensors. Tensors that it reads from elsewhere become
        constants of the graph.
    inputs : tuple of Tensor
        Decide the shapes and dtypes of the graph's inputs.

    Returns
    -------
    Model

    Raises
    ------
    NotImplementedError
        The function reads a value (``item()``, ``if`` on a tensor, printing): the graph would bake it in.
    """
    inputs = tuple(inputs)
    _C.capture_begin(inputs)
    try:
        outputs = function(*inputs)
        outputs = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
    except BaseException:
        _C.capture_end(None)
        raise
    graph = _C.capture_end(outputs)
    for index, name in enumerate(_input_names(function, len(inputs))):
        graph._name_input(index, name)
    return Model(graph)


def _input_names(function, count):
    """The function's parameter names, as far as they name the inputs one by one."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return plain[:count]


def save(function, inputs, path):
    """Captures ``function(*inputs)`` and writes it as an ONNX model, opset 21.

    Parameters
    ----------
    function : callable or Model
        What to save; see `capture`.
    inputs : tuple of Tensor
        Example inputs: their shapes and dtypes become the model's.
    path : str or os.PathLike
        Written in one go: on failure the old file, if any, is still there.

    Raises
    ------
    NotImplementedError
        The function reads a value, or an op has no form in a file; the message names it and its line.
    OSError
        The path cannot be written.

    Examples
    --------
    >>> spool.onnx.save(lambda x: x @ x, (spool.rand(2, 2),), "/tmp/square.onnx")
    """
    model = function if isinstance(function, Model) else capture(function, inputs)
    model.save(path)


def load(path):
    """Reads an ONNX model.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Model

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file is broken.
    NotImplementedError
        The model uses an operator, a data type or an opset that is not supported; the message names it.
    """
    return Model(_C.onnx_load(os.fspath(path)))
