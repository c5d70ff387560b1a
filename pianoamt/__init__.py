"""Piano recordings to MIDI with a small harmonic network."""

import os

__version__ = "0.2.0"
__all__ = ["Transcriber", "Transcription", "transcribe"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads this when it is loaded


def __getattr__(name: str) -> object:
    """Load the transcriber on first use, so that `import pianoamt` stays instant."""
    if name in __all__:
        from pianoamt import transcription as module

        return getattr(module, name)
    raise AttributeError(f"module 'pianoamt' has no attribute {name!r}")
