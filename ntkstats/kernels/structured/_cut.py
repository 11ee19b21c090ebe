"""Cut the last product off every gradient.

The gradient of a parameter is, in almost every network, a sum of products of something computed
on the way forward with something computed on the way back. Its graph is read backwards from the
result, through what only moves entries around, to that product, whose operands are kept in its
place. What is not recognised stays as it is: that costs speed, never correctness.

References
----------
Novak et al. (2022), *Fast finite width neural tangent kernel*, for the use of structure; Goodfellow
(2015), *Efficient per-example gradient computations*, for norms without gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ntkstats._compat import Equation, Graph, Literal, Variable
from ntkstats.kernels.structured._layout import starts_right
from ntkstats.kernels.structured._products import (
    PRODUCTS,
    Atom,
    NotAProductError,
    Product,
    Step,
    aligned,
    lookup,
)

Producers = dict[Variable, tuple[Equation, int]]


class Leaf(NamedTuple):
    """How the gradient of one parameter array is written.

    Attributes
    ----------
    rule
        ``"product"``, ``"convolution"``, ``"lookup"``, ``"product + lookup"``; rows that are
        written out because there is nothing to gain from factors: ``"sum"`` (over positions),
        ``"vector"`` (no longer than one activation), ``"masked product"``; ``"zero"`` (without
        influence); or ``"dense"`` (not recognised).
    products
        Matrix products and convolutions, with equal layouts.
    lookups
        The same for lookups.
    gradient
        The gradient itself.
    shape
        Shape of the parameter.
    """

    rule: str
    products: tuple[Product, ...]
    lookups: tuple[Product, ...]
    gradient: Atom
    shape: tuple[int, ...]


class Whole(NamedTuple):
    """A term that is left as it is.

    Attributes
    ----------
    rule
        ``"sum"`` when it is a sum over positions of something smaller than a product,
        ``"masked product"`` when constants multiply a product entry by entry (which leaves
        nothing to factor), else ``"dense"``.
    """

    rule: str


Term = Product | Whole
DENSE = Whole("dense")


def cut(graph: Graph, cotangent: Variable) -> list[Leaf]:
    """Recognise the gradients that a graph returns.

    Scans in the graph are made to return operands too, so it has to be pruned before it is run.

    Parameters
    ----------
    graph
        Pullback of one sample; its outputs are the gradients of the parameter arrays.
    cotangent
        What is pulled back.
    """
    leaves = [_leaf(graph, gradient) for gradient in graph.outputs]
    # Known only now that scans return the operands.
    varying = graph.depending([cotangent])

    def marked(product: Product) -> Product:
        left, right = (
            replace(o, varies=o.variable in varying) for o in (product.left, product.right)
        )
        return replace(product, left=left, right=right)

    return [
        leaf._replace(
            products=tuple(map(marked, leaf.products)), lookups=tuple(map(marked, leaf.lookups))
        )
        for leaf in leaves
    ]


def _leaf(graph: Graph, gradient: Atom) -> Leaf:
    found = _terms(graph, gradient, ())
    terms = [aligned(term) for term in found if isinstance(term, Product)]
    wholes = {term.rule for term in found if isinstance(term, Whole)}

    def whole(rule: str) -> Leaf:
        return Leaf(rule, (), (), gradient, gradient.shape)

    if not found:
        return whole("zero")
    if wholes and sum(size > 1 for size in gradient.shape) <= 1:
        return whole("sum" if wholes == {"sum"} and not terms else "vector")
    if wholes:
        return whole(wholes.pop() if len(wholes) == 1 and not terms else "dense")
    if len(terms) > 1:
        layouts = {None if term.order is None else term.order.runs for term in terms}
        # A lookup whose rows come first in the gradient has its operands the other way round.
        turned = any(t.rule == "lookup" and t.order and starts_right(t.order) for t in terms)
        if None in layouts or len(layouts) > 1 or turned:
            return whole("dense")
    lookups = tuple(term for term in terms if term.rule == "lookup")
    products = tuple(term for term in terms if term.rule != "lookup")
    rule = " + ".join(sorted({term.rule for term in terms}, reverse=True))
    return Leaf(rule, products, lookups, gradient, gradient.shape)


def _terms(graph: Graph, atom: Atom, steps: tuple[Step, ...]) -> list[Term]:
    """Terms that add up to a value; ``steps`` lead from it to the gradient."""
    producers = graph.producers
    if _is_zero(atom, producers):
        return []
    if isinstance(atom, Variable) and not jnp.issubdtype(atom.dtype, jnp.floating):
        # Products of complex numbers (Fourier layers) become real in ways that are not followed.
        return [DENSE]
    if isinstance(atom, Literal) or atom not in producers:
        # The sum so far of a scan that accumulates adds nothing of its own.
        accumulated = bool(steps) and steps[0].name == "accumulate" and steps[0].value[1] is atom
        return [] if accumulated else [DENSE]
    eqn, output = producers[atom]
    name, params = eqn.name, eqn.params
    first = eqn.inputs[0]
    if name in ("add_any", "add"):
        if any(term.shape != atom.shape for term in eqn.inputs):
            return [DENSE]
        return [term for side in eqn.inputs for term in _terms(graph, side, steps)]
    if name in ("convert_element_type", "copy", "copy_p", "optimization_barrier"):
        return _terms(graph, eqn.inputs[output], steps)
    if name == "transpose":
        return _terms(graph, first, (Step("transpose", params["permutation"]), *steps))
    keeps_entries = name in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
    if keeps_entries and math.prod(first.shape) == atom.size:
        return _terms(graph, first, (Step("reshape", atom.shape), *steps))
    if name == "reduce_sum":
        inner = _terms(graph, first, (Step("sum", tuple(params["axes"])), *steps))
        return [Whole("sum")] if any(isinstance(term, Whole) for term in inner) else inner
    if name in ("slice", "split"):
        parts = _parts(eqn, output)
        return _terms(graph, first, (Step("slice", parts), *steps))
    if name == "scan":
        return _of_scan(graph, eqn, output, steps)
    try:
        if name in ("neg", "mul", "div"):
            masked = _masked(eqn)
            if masked is not None:
                inner = _terms(graph, masked, ())
                known = inner and all(isinstance(term, Product) for term in inner)
                return [Whole("masked product")] if known else [DENSE]
            value, factor = _scaled(eqn, producers)
            return _terms(graph, value, (Step("scale", factor), *steps))
        if name in PRODUCTS:
            return [PRODUCTS[name](eqn, steps)]
        if name == "scatter-add":
            return [*_terms(graph, first, steps), lookup(eqn, steps)]
    except NotAProductError:
        return [DENSE]
    return [DENSE]


def _parts(eqn: Equation, output: int) -> list[tuple[int, int, int]]:
    """``(start, stop, step)`` along each axis of what a slice takes."""
    shape, params = eqn.inputs[0].shape, eqn.params
    if eqn.name == "slice":
        steps = params["strides"] or (1,) * len(shape)
        ends = params["start_indices"], params["limit_indices"], steps
        # NumPy's integers among them would make equal steps differ in type.
        return [(int(a), int(b), int(c)) for a, b, c in zip(*ends, strict=True)]
    sizes, axis = params["sizes"], params["axis"]
    start = sum(sizes[:output])
    parts = [(0, size, 1) for size in shape]
    parts[axis] = (start, start + sizes[output], 1)
    return parts


def _of_scan(graph: Graph, eqn: Equation, output: int, steps: tuple[Step, ...]) -> list[Term]:
    """Terms of what a scan returns for every step, or adds up over the steps."""
    assert eqn.body is not None
    result = eqn.body.outputs[output]
    if output >= eqn.n_carry:
        return _terms(eqn.body, result, (Step("stack", eqn), *steps))
    carried = eqn.n_consts + output
    before = eqn.body.inputs[carried]
    if _additions(eqn.body, result, before) != 1:
        return [DENSE]
    added = _terms(eqn.body, result, (Step("accumulate", (eqn, before)), *steps))
    return [*added, *_terms(graph, eqn.inputs[carried], steps)]


def _additions(body: Graph, atom: Atom, carried: Variable) -> int:
    """How often a carried value enters a sum as it is."""
    if atom is carried:
        return 1
    if isinstance(atom, Literal) or atom not in body.producers:
        return 0
    eqn, _ = body.producers[atom]
    if eqn.name not in ("add_any", "add"):
        return 0
    return sum(_additions(body, term, carried) for term in eqn.inputs)


def _is_zero(atom: Atom, producers: Producers) -> bool:
    if isinstance(atom, Literal):
        return isinstance(atom.value, np.ndarray) and not atom.value.any()
    if atom not in producers:
        return False
    eqn, _ = producers[atom]
    moves = eqn.name in ("broadcast_in_dim", "reshape", "convert_element_type", "transpose")
    return moves and _is_zero(eqn.inputs[0], producers)


def _scaled(eqn: Equation, producers: Producers) -> tuple[Atom, Atom]:
    """An array and the number that multiplies it."""
    if eqn.name == "neg":
        return eqn.inputs[0], Literal(np.asarray(-1.0, eqn.outputs[0].dtype))
    a, b = eqn.inputs
    shape = eqn.outputs[0].shape
    pairs = [(a, b)] if eqn.name == "div" else [(a, b), (b, a)]
    for value, factor in pairs:
        number = _number(factor, producers)
        if number is None or value.shape != shape:
            continue
        if eqn.name == "mul":
            return value, number
        if isinstance(number, Literal):
            return value, Literal(np.asarray(1 / number.value, number.value.dtype))
    raise NotAProductError


def _masked(eqn: Equation) -> Variable | None:
    """What is multiplied entry by entry with an array of constants."""
    if eqn.name != "mul":
        return None
    for value, mask in (eqn.inputs, eqn.inputs[::-1]):
        if not isinstance(mask, Literal) or not isinstance(value, Variable):
            continue
        if mask.shape == value.shape == eqn.outputs[0].shape and len(mask.shape) > 1:
            return value
    return None


def _number(atom: Atom, producers: Producers) -> Literal | None:
    """The number that an array repeats."""
    if isinstance(atom, Literal):
        single = isinstance(atom.value, np.ndarray) and atom.value.size == 1
        return Literal(atom.value.reshape(())) if single else None
    if atom not in producers or producers[atom][0].name not in ("broadcast_in_dim", "reshape"):
        return None
    return _number(producers[atom][0].inputs[0], producers)
