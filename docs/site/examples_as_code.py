# SPDX-License-Identifier: Apache-2.0
"""The one example of a docstring, shown as code: an extension of griffe, which expects several."""

import griffe


class ExamplesAsCode(griffe.Extension):
    """Renames the section."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called for whatever may have a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
