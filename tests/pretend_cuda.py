# SPDX-License-Identifier: Apache-2.0
"""A CUDA device that is not there: tensors say that they lie on it, and are computed on the CPU.

Like on the real one, a tensor of the device and one of the CPU do not meet: whoever forgets to
move something, or brings it back too early, gets the error that torch would give. Values and
gradients are the CPU's, so that they can be compared with those of a run that moved nothing.

    with PretendCuda():
        model.to("cuda")(torch.zeros(2, 3, device="cuda"))

The renderer of the device, gsplat, is stood in for by `install_gsplat`: it takes nothing but
tensors of the device and draws with our CPU kernels.
"""

import sys
import types

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pointillist_hf.geometry.structures import Cameras, Gaussians
from pointillist_hf.rendering.cpu.backend import rasterize_cpu

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
MARK = "_pretends_cuda"

# Between devices: what is written takes its values from wherever they are.
COPIES = {
    Tensor.copy_,
    Tensor.data.__set__,
    Tensor.type_as,
    torch._has_compatible_shallow_copy_type,
}
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
# These refuse even single numbers of another device.
STRICT = {torch.cat, torch.stack, torch.concatenate}
# What only memory of the CPU can give.
ARRAYS = {Tensor.numpy, Tensor.__array__, torch.Tensor.data_ptr}


def is_on_cuda(tensor):
    """Whether it pretends to be there."""
    return MARK in tensor.__dict__


def tensors_in(value):
    """All tensors of nested arguments, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


class PretendGenerator(torch.Generator):
    """A random stream that says on which device it draws."""

    def __new__(cls, device="cpu"):
        stream = super().__new__(cls)
        stream.place = CUDA if torch.device(device).type == "cuda" else CPU
        return stream

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return self.place


class PretendCuda(TorchFunctionMode):
    """Inside, the device is there."""

    def __enter__(self):
        self.kept, torch.Generator = torch.Generator, PretendGenerator
        return super().__enter__()

    def __exit__(self, *error):
        torch.Generator = self.kept
        return super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return CUDA if is_on_cuda(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return is_on_cuda(args[0])
        if func == Tensor.is_cpu.__get__:
            return func(*args) and not is_on_cuda(args[0])
        if func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        given = tensors_in([args, kwargs])
        there = [tensor for tensor in given if is_on_cuda(tensor)]
        if func in ARRAYS and there and not kwargs.get("force"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        self.check(func, args, given, there)
        args, kwargs, device = self.take_device(func, args, kwargs)
        if device is None:
            device = self.device_of(func, args, there)
        stream = kwargs.get("generator")
        if stream is not None and stream.device.type != device.type:
            raise RuntimeError(
                f"Expected a '{device}' device type for generator but found '{stream.device}'"
            )
        out = func(*args, **kwargs)
        known = {id(tensor) for tensor in given}
        has_moved = func in MOVES and is_on_cuda(args[0]) != (device.type == "cuda")
        if has_moved and out is args[0]:
            out = args[0].clone()  # of another device is another tensor
            known = set()
        if func == Tensor.data.__set__:
            self.mark(args[0], CUDA if is_on_cuda(args[1]) else CPU)
        for tensor in tensors_in(out):
            if id(tensor) not in known:
                self.mark(tensor, device)
        return out

    @staticmethod
    def mark(tensor, device):
        tensor.__dict__.pop(MARK, None)
        if device.type == "cuda":
            tensor.__dict__[MARK] = True

    @staticmethod
    def device_of(func, args, there):
        """Where the result lies, if nothing says so."""
        if func in INDEXING or func in COPIES or func in {Tensor.grad.__get__}:
            return CUDA if is_on_cuda(args[0]) else CPU
        return CUDA if there else CPU

    @staticmethod
    def check(func, args, given, there):
        """What torch checks: all of one device, but for single numbers and indices of the CPU."""
        if func in COPIES or func in MOVES or not there:
            return
        elsewhere = [t for t in given if not is_on_cuda(t) and (t.dim() or func in STRICT)]
        if func in INDEXING and is_on_cuda(args[0]):
            elsewhere = [t for t in tensors_in(args[2:]) if not is_on_cuda(t) and t.dim()]
        if elsewhere:
            raise RuntimeError(
                f"{getattr(func, '__name__', func)}: Expected all tensors to be on the same "
                "device, but found at least two devices, cuda:0 and cpu!"
            )

    @staticmethod
    def take_device(func, args, kwargs):
        """The arguments with the CPU in the place of the device, and which one they name."""
        if func == Tensor.cpu:
            return args, kwargs, CPU
        if func == Tensor.cuda:
            return args[:1], {}, CUDA
        named = kwargs.get("device")
        if named is not None:
            kwargs["device"] = stand_in(named)
        if func == Tensor.to:
            like = [CUDA if is_on_cuda(a) else a.device for a in args[1:] if isinstance(a, Tensor)]
            places = [a for a in args[1:] if isinstance(a, (str, torch.device))]
            named = next(iter([*like, *places]), named)
            named = named or (CUDA if is_on_cuda(args[0]) else CPU)
            args = tuple(stand_in(a) if isinstance(a, (str, torch.device)) else a for a in args)
        return args, kwargs, None if named is None else torch.device(named)


def stand_in(device):
    """The CPU for the device that is not there."""
    return CPU if torch.device(device).type == "cuda" else device


def install_gsplat(monkeypatch):
    """Puts a stand-in in the place of gsplat."""
    module = types.ModuleType("gsplat")
    module.rasterization = rasterization
    monkeypatch.setitem(sys.modules, "gsplat", module)


def rasterization(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, backgrounds, **options
):
    """What gsplat answers, of tensors that all pretend to lie on the device."""
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
    given = dict(zip(names, (means, quats, scales, opacities, colors, viewmats, Ks), strict=True))
    given["backgrounds"] = means.new_zeros(len(viewmats), 3) if backgrounds is None else backgrounds
    for name, tensor in given.items():
        assert tensor.is_cuda, f"gsplat's kernels would read {name} of the CPU"
    with torch._C.DisableTorchFunction():
        gaussians = Gaussians(means, quats, scales, opacities, colors)
        cameras = Cameras(viewmats, Ks, width, height)
        colors, alphas, means2d, radii = rasterize_cpu(gaussians, cameras, backgrounds, None)
    for tensor in (colors, alphas, means2d, radii):
        PretendCuda.mark(tensor, CUDA)
    return colors, alphas, {"means2d": means2d, "radii": radii}
