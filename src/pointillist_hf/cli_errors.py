# SPDX-License-Identifier: Apache-2.0
"""Floor 9. What is the user's doing, and what is our fault: decided for all commands and the app.

The former becomes one sentence; the latter keeps its trace. Classes of other libraries are told by
their names, so that nothing is imported for the sake of errors that do not come.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE, INTERRUPTED = 2, 130
MAX_LENGTH = 1500  # of a sentence; what libraries say of a damaged file may be as long as the file
# Errors that a file, an argument, the disk or a missing library can bring about.
KINDS = (OSError, ValueError, ImportError, MemoryError, EOFError, FloatingPointError)
# Likewise, of other libraries: module (up to the first dot) and name of a class.
FOREIGN_KINDS = {
    ("safetensors", "SafetensorError"),
    ("datasets", "DatasetsError"),
    ("pyarrow", "ArrowException"),
    ("huggingface_hub", "StrictDataclassError"),
    ("huggingface_hub", "HfHubHTTPError"),
    ("huggingface_hub", "HFValidationError"),
    ("httpx", "HTTPError"),
    ("PIL", "DecompressionBombError"),
    ("zipfile", "BadZipFile"),
    ("zlib", "error"),
    ("torch", "OutOfMemoryError"),
    ("concurrent", "BrokenProcessPool"),
}
# The only RuntimeErrors that are not ours.
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
ADVICE = {
    errno.EACCES: "choose another place, or change its rights",
    errno.EPERM: "choose another place, or change its rights",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.ENOENT: "check the path",
    errno.ELOOP: "symbolic links lead in a circle; mend them",
}


def explain(error: BaseException) -> str | None:
    """A sentence for what the user can mend; None for what is a fault of this package."""
    text = " ".join(str(error).split())
    names = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or any(word in text.lower() for word in MEMORY_WORDS):
        sentence = f"Memory is not enough; ask for less, such as fewer points. {text}"
    elif ("concurrent", "BrokenProcessPool") in names:
        sentence = f"A process was ended, perhaps for want of memory; lower `--num-proc`. {text}"
    elif isinstance(error, OSError) and error.errno in ADVICE:
        place = f"{error.filename}: " if error.filename is not None else ""
        sentence = f"{place}{error.strerror}; {ADVICE[error.errno]}."
    # Doors begin with the name of what they refuse; other TypeErrors are mistakes in the code.
    elif isinstance(error, KINDS) or names & FOREIGN_KINDS or _is_door(error, text):
        sentence = text or type(error).__name__
    else:
        return None
    return sentence if len(sentence) <= MAX_LENGTH else f"{sentence[:MAX_LENGTH]} ..."


def _is_door(error: BaseException, text: str) -> bool:
    return isinstance(error, TypeError) and text.startswith("`")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with one line on stderr where the user can mend what went wrong.

    Raises:
        SystemExit: With the code of the error.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output has left; the interpreter knows what to do
    except KeyboardInterrupt as error:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(INTERRUPTED) from error
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"Error: {sentence}\n")
        raise SystemExit(EXIT_CODE) from error
