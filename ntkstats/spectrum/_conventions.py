"""How small eigenvalues are treated, here and in the literature's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ntkstats.errors import SpectrumError


@dataclass(frozen=True)
class Convention:
    """A way to turn eigenvalues into a probability distribution.

    Attributes
    ----------
    name
        What the convention is called in ``convention=`` and in records.
    clip
        Threshold for small and negative eigenvalues; in units of ``n * eps * lambda_max`` (eps of
        the dtype) if ``relative``, else absolute.
    relative
        True makes every result independent of the scale of the kernel.
    before
        True: clip the eigenvalues, then divide by their sum. False: divide first, then clip; the
        result then need not add up to one.
    floors
        True: what lies below the threshold is raised to it. False: it counts as zero.
    divided_by_log_n
        True when the source reports ``S / ln n``, False when it reports S in nats.
    note
        What else differs, in words.
    source
        Where the numbers of this convention come from.
    """

    name: str
    clip: float
    relative: bool
    before: bool
    floors: bool
    divided_by_log_n: bool
    note: str
    source: str


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            Convention(
                name="ntkstats",
                clip=1.0,
                relative=True,
                before=True,
                floors=False,
                divided_by_log_n=False,
                note="Eigenvalues below rounding error count as zero; invariant to scale.",
                source="ntkstats",
            ),
            Convention(
                name="znnl",
                clip=1e-14,
                relative=False,
                before=True,
                floors=True,
                divided_by_log_n=True,
                note="An absolute floor: depends on the scale of the kernel.",
                source="ZnNL and papyrus (zincware), 2022-2024",
            ),
            Convention(
                name="znnl-reduced",
                clip=1e-11,
                relative=False,
                before=True,
                floors=True,
                divided_by_log_n=True,
                note="An absolute floor, for the kernel summed over outputs (outputs='trace').",
                source="ZnNL (zincware), reduced kernels",
            ),
            Convention(
                name="offline-2024",
                clip=1e-8,
                relative=False,
                before=False,
                floors=True,
                divided_by_log_n=False,
                note="A floor under the normalised eigenvalues, which then exceed one in sum.",
                source="offline analysis of stored spectra, 2024",
            ),
        )
    }
)
"""The named conventions, `"ntkstats"` first."""


def as_convention(convention: str | Convention) -> Convention:
    """Give the convention of that name, or the convention itself.

    Parameters
    ----------
    convention
        A name in `CONVENTIONS`, or a `Convention` of your own.

    Returns
    -------
    Convention
        The record.

    Raises
    ------
    SpectrumError
        There is no convention of that name.

    Examples
    --------
    >>> as_convention("znnl").clip
    1e-14
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        msg = (
            f"convention={convention!r}; expected one of {tuple(CONVENTIONS)} or a Convention of"
            " your own."
        )
        raise SpectrumError(msg)
    return CONVENTIONS[convention]
