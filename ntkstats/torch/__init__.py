"""PyTorch: modules on their probes, and callbacks for the loops that train them.

Import it explicitly; nothing else in the library imports torch. `LightningCallback` and
`HuggingFaceCallback` import Lightning and transformers when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from ntkstats.torch._attach import Attached as Attached
from ntkstats.torch._attach import attach as attach
from ntkstats.torch._on_probe import on_probe as on_probe

if TYPE_CHECKING:
    from ntkstats.torch._huggingface import HuggingFaceCallback as HuggingFaceCallback
    from ntkstats.torch._lightning import LightningCallback as LightningCallback

__all__ = ["Attached", "HuggingFaceCallback", "LightningCallback", "attach", "on_probe"]


def __getattr__(name: str) -> Any:
    if name == "LightningCallback":
        from ntkstats.torch._lightning import LightningCallback

        return LightningCallback
    if name == "HuggingFaceCallback":
        from ntkstats.torch._huggingface import HuggingFaceCallback

        return HuggingFaceCallback
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
