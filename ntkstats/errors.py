"""Every error and warning of the library.

Each class says in its docstring what happened and how to fix it; each message says what was
given, what was expected and what to do. All errors derive from `NtkStatsError` and from the
built-in class that a caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations


class NtkStatsError(Exception):
    """Base class of every error raised by ntkstats."""


class NtkStatsWarning(UserWarning):
    """Base class of every warning issued by ntkstats."""


# --- models and probes ------------------------------------------------------------------------


class ModelError(NtkStatsError, ValueError):
    """The model cannot be used as given.

    Raised when no adapter knows the object, when an output lacks the leading sample axis or has
    no entries, or when the model fails on the probe. Pass the module itself to `as_model`, or a
    plain ``apply(params, x)``, and a probe the model accepts.
    """


class ParamsError(NtkStatsError, ValueError):
    """The parameters cannot be differentiated or do not belong to the model.

    Raised when no parameter is a real floating-point array (integer or complex parameters, an
    empty filter), or when the structure or shapes differ from those the measurement was bound
    to. Pass the parameters the model was built with.
    """


class HeadError(NtkStatsError, KeyError):
    """The model has no output of that name.

    Pass one of the names that the message lists as ``head=``.
    """

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0]) if self.args else ""


class ComplexOutputError(ModelError):
    """An output is complex; the NTK here is defined for real outputs.

    Return real and imaginary parts as separate components: ``jnp.stack([z.real, z.imag], -1)``.
    """


class DerivativeNeededError(ModelError):
    """What `Model.glance` gave was differentiated.

    A glance leaves out what only derivatives need. Use what `Model.split` gives; a recorder does
    that by itself for collectors that differentiate.
    """


class CoupledSamplesError(ModelError):
    """One sample's output changes when another sample changes.

    Typical causes are batch normalisation in training mode, contrastive heads, and one graph
    whose nodes are the samples. Switch the model to evaluation mode, or declare the coupling
    with ``as_model(..., coupled=True)``; the kernel is then taken on the whole probe at once.
    """


class ProbeError(NtkStatsError, ValueError):
    """The probe is empty, not finite, ragged, or does not fit the model."""


class MissingTargetsError(ProbeError):
    """An observable needs targets and the probe has none.

    Build the probe with ``Probe(x, y)``.
    """


# --- kernels and spectra ----------------------------------------------------------------------


class KernelError(NtkStatsError, ValueError):
    """A kernel was asked for with arguments that do not define one."""


class BudgetError(NtkStatsError, MemoryError):
    """The smallest possible computation does not fit ``budget_bytes``.

    Raise the budget, use fewer samples, or a reduced kernel (``outputs="trace"``, ``"probe"``).
    """


class EngineWarning(NtkStatsWarning):
    """The structured engine cannot be used for this model; the reference engine is.

    Kernels stay exact; they take longer. The message says why. Pass ``method="reference"`` to
    choose that engine yourself.
    """


class PrecisionError(NtkStatsError, ValueError):
    """The requested precision cannot be had here.

    float64 measurements are traced from the host under JAX's x64 mode. They cannot start inside
    a function that is already being traced in float32, and a model that casts to float32
    internally cannot deliver them.
    """


class SpectrumError(NtkStatsError, ValueError):
    """A spectral quantity was asked of something that is not a spectrum or a square kernel."""


# --- collectors -------------------------------------------------------------------------------


class CollectorError(NtkStatsError, ValueError):
    """A collector is declared or combined in a way that cannot be measured."""


class DuplicateNameError(CollectorError):
    """Two collectors would write the same field.

    Give one of them its own ``name=``; its fields are then prefixed with it.
    """


class ContractError(CollectorError, AssertionError):
    """A collector does not keep the contract that lets it run anywhere.

    Raised by `ntkstats.testing.check_collector`. The message names the collector, the clause, what
    was found and what to change.
    """


class MissingExtraError(CollectorError):
    """A collector needs something the loop did not pass.

    Pass it by keyword: ``recorder(step, state, loss=loss_value)``.
    """


# --- recording --------------------------------------------------------------------------------


class ScheduleError(NtkStatsError, ValueError):
    """A schedule is empty or its numbers make no sense."""


class StoreError(NtkStatsError, OSError):
    """The run store cannot be read or written."""


class RunNotFoundError(StoreError, FileNotFoundError):
    """No run is stored at that path."""


class ExistingRunError(StoreError, FileExistsError):
    """A run is already stored at that path.

    Nothing is ever overwritten. Choose another path, or continue with ``resume=True``.
    """


class RunMismatchError(StoreError, ValueError):
    """A resumed run differs from the stored one in config, probe, model or fields."""


class SchemaVersionError(StoreError):
    """The store was written by a newer version of ntkstats. Upgrade ntkstats to read it."""


class RecordingError(NtkStatsError, RuntimeError):
    """A measurement failed and the recorder is strict, or the recorder was misused.

    Misuse shows before training: a step that is no integer, a call inside a JAX trace, stacked
    records whose shapes do not fit. The message says what to pass instead.
    """


class RecordingWarning(NtkStatsWarning):
    """A measurement or a mirror failed; training goes on and the failure is stored."""


# --- checkpoints ------------------------------------------------------------------------------


class CheckpointError(NtkStatsError, ValueError):
    """A checkpoint cannot be read, or its step cannot be told.

    Pickles are never loaded, since they run code: convert them to ``.safetensors`` or ``.npz``.
    """


class CheckpointMismatchError(CheckpointError):
    """A checkpoint holds other arrays than ``like=``, or not the ``part=`` that was asked for.

    The message names those that are missing, unexpected, or of another shape.
    """


# --- loss landscapes --------------------------------------------------------------------------


class LandscapeError(NtkStatsError, ValueError):
    """A loss landscape was asked for something that its definition or contents cannot give.

    Raised for a loss that is no scalar, parameters of another dimension, a declared symmetry that
    does not leave the loss unchanged, settings that make no sense, and networks that lack what an
    analysis needs.
    """


class ProblemMismatchError(LandscapeError, StoreError):
    """A stored landscape belongs to another problem.

    The loss at fixed points, or the dimension, differs from what the file was made with. Give the
    problem it was made with, or another path.
    """


class LandscapeWarning(NtkStatsWarning):
    """A search ended in a way that its user should know about; what was found is stored.

    Searches that diverged or met numbers that are not finite, flat directions that no declared
    zero mode explains, gradients that jump.
    """


# --- everything else --------------------------------------------------------------------------


class TrainingError(NtkStatsError, ValueError):
    """The reference training loop was given arguments that do not fit together."""


class AnalysisError(NtkStatsError, ValueError):
    """A trajectory, correlation or power law was asked of numbers that cannot give one."""


class SelectionError(NtkStatsError, ValueError):
    """Data cannot be selected, or a set cannot be scored, with what was given.

    Raised before anything is computed when the pool, the number of picks and the masks do not fit
    together, when the pool holds numbers that are not finite, or when a selector lacks what it
    needs (labels, a kernel, inputs). The message says what to pass.
    """


class PlotError(NtkStatsError, ValueError):
    """A figure was asked of a run that does not hold what it needs."""


class DependencyError(NtkStatsError, ImportError):
    """An optional package is missing or cannot work with this JAX."""
