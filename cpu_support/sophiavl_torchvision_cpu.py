"""Lets the CUDA build of torchvision 0.28 be imported beside the CPU build of torch 2.13.

The package index carries torchvision only as a CUDA build. Its C library cannot load beside CPU torch, so the operators
``torchvision::nms`` and ``torchvision::qnms`` are never declared, and ``import torchvision`` fails in
``torchvision._meta_registrations``. Declaring the two schemas just before that module loads is enough for the pure
Python transforms that Qwen2-VL's processors use. transformers imports torchvision before any plugin of verl or vLLM is
loaded, hence the ``.pth`` file beside this one: it runs at interpreter start.
"""

import sys
from importlib.abc import MetaPathFinder


class _DeclareNms(MetaPathFinder):
    """Finds nothing; declares the operators when torchvision's meta registrations are about to be imported."""

    library = None  # torch.library.Library: the declaration lives as long as this object

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision._meta_registrations" and _DeclareNms.library is None:
            import torch

            if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
                _DeclareNms.library = torch.library.Library("torchvision", "FRAGMENT")
                _DeclareNms.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _DeclareNms.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _DeclareNms())
