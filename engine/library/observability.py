"""What measures a module: needs torch, which the rest of the library does without."""

from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.observation import ObservabilityEngine, ObservedLayer

__all__ = ["MetricsCollector", "ObservabilityEngine", "ObservedLayer"]
