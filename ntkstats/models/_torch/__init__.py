"""PyTorch modules: imported only when the program has imported torch itself."""

from ntkstats.models._torch._model import torch_model as torch_model
from ntkstats.models._torch._module import torch_module_of as torch_module_of
from ntkstats.models._torch._module import unwrapped as unwrapped
