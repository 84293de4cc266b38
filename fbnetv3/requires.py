"""Optional packages that a command needs."""

from __future__ import annotations

import warnings

from fbnetv3.errors import FBNetError


def require_detectron2() -> None:
    """Imports detectron2, which warns of nothing that a user could mend.

    Raises:
        FBNetError: it is not installed; the message says how to install it.
    """
    try:
        with warnings.catch_warnings():
            # fvcore scripts two losses on import, which torch calls deprecated
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
            import detectron2.engine  # noqa: F401
    except ImportError as error:
        raise FBNetError(
            "detectron2 is not installed; run tools/install_detectron2.py (or "
            "fbnetv3-install-detectron2) in this environment"
        ) from error
