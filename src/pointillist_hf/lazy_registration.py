# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Makes diffusers and transformers know this package without loading them, or it.

`import pointillist_hf` calls `install`. The tables of both libraries are touched when they are
imported, be it before or after; classes of this package are loaded when one of them is asked for.
Those tables are private to the libraries: this file and `registration.py` alone know of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGE = "pointillist_hf"
# Bases that users may swap for their own come last: the last match is what a component passed to
# from_pretrained must be an instance of.
PIPELINE_CLASSES = (
    "PortraitImageProcessor",
    "PortraitTracker",
    "RigRegressor",
    "AvatarConditioner",
    "PointTokenizer",
    "PointGeneratorForCausalLM",
    "GaussianDecoder",
    "ProceduralHeadRig",
    "FlameHeadRig",
    "HeadRig",
)
PIPELINE = "AvatarPipeline"
MODEL_TYPES = (
    "pointillist_conditioner",
    "pointillist_point_cloud_encoder",
    "pointillist_gaussian_decoder",
    "pointillist_rig_regressor",
    "pointillist_point_generator",
)


class _FilledOnDemand(dict):
    """A table of transformers that holds our classes from the moment one of them is asked for."""

    def __init__(self, names: Iterable[str], known: dict) -> None:
        super().__init__(known)
        self.names = {*names}

    def _fill(self) -> None:
        if self.names:
            self.names = set()
            import_module(f"{PACKAGE}.registration").register_with_transformers()

    def __contains__(self, key: object) -> bool:
        return key in self.names or super().__contains__(key)

    def __getitem__(self, key: object) -> object:
        if key in self.names:
            self._fill()
        return super().__getitem__(key)


def _add_pipeline_classes(module: ModuleType) -> None:
    table = {name: ["save_pretrained", "from_pretrained"] for name in PIPELINE_CLASSES}
    module.LOADABLE_CLASSES[PACKAGE] = table
    module.ALL_IMPORTABLE_CLASSES.update(table)


def _add_pipeline(module: ModuleType) -> None:
    """`DiffusionPipeline.from_pretrained` looks for the class of a pipeline in diffusers itself."""

    class WithPipeline(type(module)):
        """The module, and one class more."""

    def load(self: ModuleType) -> type:
        return getattr(import_module(PACKAGE), PIPELINE)

    setattr(WithPipeline, PIPELINE, property(load))
    module.__class__ = WithPipeline


def _add_configs(module: ModuleType) -> None:
    mapping = module.CONFIG_MAPPING
    mapping._extra_content = _FilledOnDemand(MODEL_TYPES, mapping._extra_content)


def _add_tokenizer(module: ModuleType) -> None:
    known = module.REGISTERED_TOKENIZER_CLASSES
    module.REGISTERED_TOKENIZER_CLASSES = _FilledOnDemand(["PointTokenizer"], known)


HOOKS: dict[str, Callable[[ModuleType], None]] = {
    "diffusers": _add_pipeline,
    "diffusers.pipelines.pipeline_loading_utils": _add_pipeline_classes,
    "transformers.models.auto.configuration_auto": _add_configs,
    "transformers.models.auto.tokenization_auto": _add_tokenizer,
}


class _ImportWatcher:
    """Waits for the modules of `HOOKS`, and lets everything else pass."""

    def __init__(self, names: Iterable[str]) -> None:
        self.waiting = {*names}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, which runs the hook once it has run the module."""
        if name not in self.waiting:
            return None
        self.waiting.discard(name)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_with_hook(module: ModuleType) -> None:
            run(module)
            # diffusers and transformers put a lazy module in the place of their own.
            HOOKS[name](sys.modules[name])

        spec.loader.exec_module = run_with_hook
        return spec


def install() -> None:
    """Runs the hooks of what is loaded, and keeps the others until theirs is."""
    loaded = [name for name in HOOKS if name in sys.modules]
    for name in loaded:
        HOOKS[name](sys.modules[name])
    if len(loaded) < len(HOOKS):
        sys.meta_path.insert(0, _ImportWatcher({*HOOKS} - {*loaded}))
