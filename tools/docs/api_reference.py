"""The pages of the API reference: one for each group of public modules, filled by mkdocstrings."""

from __future__ import annotations

from collections.abc import Iterator

# Name of the page -> (title, modules)
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fbnetv3": ("fbnetv3", ("fbnetv3",)),
    "arch": ("Architectures and their cost", ("fbnetv3.arch", "fbnetv3.arch.latency")),
    "modeling": ("Networks", ("fbnetv3.modeling", "fbnetv3.modeling.deploy", "fbnetv3.timm")),
    "zoo": ("Model zoo", ("fbnetv3.zoo", "fbnetv3.zoo.classifier", "fbnetv3.zoo.detectors")),
    "data": ("Data", ("fbnetv3.data",)),
    "training": (
        "Training",
        ("fbnetv3.own_training", "fbnetv3.training", "fbnetv3.recipe", "fbnetv3.config"),
    ),
    "engine": (
        "Training loop",
        (
            "fbnetv3.engine.loop",
            "fbnetv3.engine.trainer",
            "fbnetv3.engine.hooks",
            "fbnetv3.engine.ema",
            "fbnetv3.engine.optim",
            "fbnetv3.engine.schedule",
            "fbnetv3.engine.writers",
        ),
    ),
    "detection": ("Detection", ("fbnetv3.detection.detector", "fbnetv3.detection.backbone")),
    "results": (
        "Predictions and evaluations",
        ("fbnetv3.predictions.run", "fbnetv3.evaluation.run"),
    ),
    "export": ("Export", ("fbnetv3.export.run", "fbnetv3.export.formats")),
    "weights": ("Weights", ("fbnetv3.weights.load", "fbnetv3.weights.records")),
    "search": ("Search", ("fbnetv3.search", "fbnetv3.search.report")),
    "search_fbnet": ("Search of FBNets and recipes", ("fbnetv3.search.fbnet",)),
    "search_parts": (
        "Parts of a search",
        (
            "fbnetv3.search.executors.base",
            "fbnetv3.search.predictors.predictor",
            "fbnetv3.search.storage.store",
            "fbnetv3.search.integrations.optuna",
            "fbnetv3.search.integrations.ray_tune",
        ),
    ),
    "extending": ("Registries and errors", ("fbnetv3.registries", "fbnetv3.errors")),
    "benchmark": (
        "Benchmarks",
        ("fbnetv3.benchmark.comparison", "fbnetv3.benchmark.latency"),
    ),
}


def pages() -> Iterator[tuple[str, str]]:
    """Yields the path in the site and the Markdown of each page."""
    for name, (title, modules) in PAGES.items():
        blocks = [f"::: {module}\n" for module in modules]
        yield f"reference/api/{name}.md", "\n".join([f"# {title}\n", *blocks])
