"""Networks as PyTorch runs them and as exported files, timed side by side in alternating rounds.

A form is one way to run a network: PyTorch in eager mode, deployed or compiled, timm's network of
the same name, or an exported file in its runtime. A file is written to a temporary folder, loaded
by its own runtime, and timed in this process. The ranges of 8-bit integers are measured on random
pixels, since the values of the ranges do not change the time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.progress import Progress
from torch import nn
from torch.optim.swa_utils import update_bn

from fbnetv3 import imagenet
from fbnetv3.benchmark import measures, variants
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.variants import Inference, Shape, Step
from fbnetv3.errors import FBNetError, did_you_mean, first_line
from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.check import compare
from fbnetv3.export.job import Job, Run
from fbnetv3.export.network import ExportNetwork
from fbnetv3.export.runtimes import RUNTIMES, FileRuntime
from fbnetv3.modeling import deploy

EAGER, DEPLOY, COMPILED, TIMM = "eager", "deploy", "compiled", "timm"
FORMS = (EAGER, DEPLOY, COMPILED, *RUNTIMES, TIMM)
"""Names of the forms that :func:`compare_formats` can time."""
DEFAULT_FORMS = tuple(form for form in FORMS if form != "litert")  # writing its file takes minutes
_ALIASES = {runtime.format.name: name for name, runtime in RUNTIMES.items()}


@dataclass(frozen=True)
class FormatSettings:
    """Settings of a comparison of forms.

    Attributes:
        forms: Names of forms, see ``FORMS``; speedups are relative to the first one that
            can run.
        resolution: Side of the images in pixels; None uses each network's own.
        batch_sizes: Numbers of images of a call.
        rounds: Number of rounds, each of which times every form.
        threads: CPU threads of torch and of the runtimes.
    """

    forms: Sequence[str] = DEFAULT_FORMS
    resolution: int | None = None
    batch_sizes: Sequence[int] = (1, 16)
    rounds: int = 10
    threads: int = 1


@dataclass(frozen=True)
class FormTime:
    """The times of one form of a network.

    Attributes:
        model: Name of the network.
        resolution: Side of the images in pixels.
        batch: Number of images of a call.
        form: Name of the form.
        runtime: Name and version of the runtime, such as ``onnxruntime 1.32.0``.
        ms: Median over the rounds, in milliseconds per call.
        speedup: Median over the rounds of the reference's time divided by this form's.
        spread: Tenth and ninetieth percentile of the ratios whose median is ``speedup``.
        rounds: Milliseconds of each round.
    """

    model: str
    resolution: int
    batch: int
    form: str
    runtime: str
    ms: float
    speedup: float
    spread: tuple[float, float]
    rounds: list[float]


@dataclass
class FormatComparison:
    """The result of :func:`compare_formats`.

    Attributes:
        times: Times, ordered by model, batch size and form.
        notes: One line for each form that was not timed, with the reason.
    """

    times: list[FormTime] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Form:
    """A form that is ready to run.

    Attributes:
        name: Name of the form.
        runtime: Function that returns name and version of the runtime, once the form has run.
        step: Function from the shape of a batch to the call to time.
    """

    name: str
    runtime: Callable[[], str]
    step: Callable[[Shape], Step]


def check_forms(names: Sequence[str]) -> list[str]:
    """Returns the names of forms without repetition.

    The name of a file format, such as ``onnx``, is replaced by its runtime's, ``onnxruntime``.

    Raises:
        BenchmarkError: A name is unknown.
    """
    forms = list(dict.fromkeys(_ALIASES.get(name, name) for name in names))
    for form in forms:
        if form not in FORMS:
            raise BenchmarkError(
                f"--formats {form}: unknown; allowed: {', '.join(FORMS)}{did_you_mean(form, FORMS)}"
            )
    return forms


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the words behind ``--formats`` into names of forms and names of networks.

    Args:
        words: Names, also several of them joined by commas.

    Raises:
        BenchmarkError: A word is neither a form nor a classifier.
    """
    forms: list[str] = []
    networks: list[str] = []
    for word in (part for text in words for part in text.split(",") if part):
        if word in FORMS or word in _ALIASES:
            forms.append(word)
            continue
        try:
            variants.check_name(word)
            variants.native_resolution(word)
        except FBNetError as error:
            raise BenchmarkError(
                f"--formats {word}: neither a form nor a network; forms: {', '.join(FORMS)}"
                f"{did_you_mean(word, FORMS)}; networks: fbnetv3-zoo list"
            ) from error
        networks.append(word)
    return check_forms(forms), networks


def compare_formats(
    models: Sequence[str],
    settings: FormatSettings | None = None,
    progress: Progress | None = None,
) -> FormatComparison:
    """Times forms of networks in alternating rounds on this machine.

    Args:
        models: Names of networks, or paths of weights files or run folders.
        settings: Forms and sizes; None uses the defaults.
        progress: Progress display that the measurements are added to.

    Returns:
        Times and notes. There is a note on each form that cannot run, for example because its
        runtime is not installed, its file cannot be written, or its float32 outputs differ from
        PyTorch's.

    Raises:
        FBNetError: A network or a form is unknown, a network is a detector, or no form can be
            timed.
    """
    settings = settings or FormatSettings()
    forms, result = check_forms(settings.forms), FormatComparison()
    for model in models:
        variants.check_name(model)
    with variants.torch_threads(settings.threads):
        for model in models:
            resolution = settings.resolution or variants.native_resolution(model)
            with TemporaryDirectory() as folder:
                ready = _Forms(model, resolution, Path(folder), result.notes).ready(forms)
                if not ready:
                    raise BenchmarkError(f"{model}: none of the forms {', '.join(forms)} can run")
                for batch in settings.batch_sizes:
                    shape = Shape(batch, resolution)
                    result.times += _time(model, shape, ready, settings, progress)
    return result


def _time(
    model: str,
    shape: Shape,
    forms: Sequence[_Form],
    settings: FormatSettings,
    progress: Progress | None,
) -> Iterator[FormTime]:
    display = progress or Progress(disable=True)
    task = display.add_task(f"{model} batch {shape.batch}", total=settings.rounds)
    steps = {form.name: form.step(shape) for form in forms}
    for step in steps.values():
        step()
    times = measures.alternate(steps, settings.rounds, lambda: display.advance(task))
    display.remove_task(task)
    reference = times[forms[0].name]
    for form in forms:
        rounds = times[form.name]
        ratios = [a / b for a, b in zip(reference, rounds, strict=True)]
        low, high = np.quantile(ratios, (0.1, 0.9)).tolist()
        yield FormTime(
            *(model, shape.resolution, shape.batch, form.name, form.runtime()),
            1e3 * statistics.median(rounds),
            statistics.median(ratios),
            (low, high),
            [1e3 * seconds for seconds in rounds],
        )


class _Forms:
    """Makes the forms of one network ready.

    Args:
        model: Name of the network.
        resolution: Side of the images in pixels.
        folder: Folder for files.
        notes: List to which a line is appended for each form that cannot be timed.
    """

    def __init__(self, model: str, resolution: int, folder: Path, notes: list[str]) -> None:
        self._model, self._resolution, self._folder = model, resolution, folder
        self._notes = notes
        self._network = self._built(variants.OURS)

    def ready(self, names: Sequence[str]) -> list[_Form]:
        """Returns the forms that can be timed, in the order of ``names``."""
        forms = []
        for name in names:
            missing = self._missing(name)
            try:
                if missing:
                    raise BenchmarkError(missing)
                forms.append(self._form(name))
            except FBNetError as error:
                self._note(name, str(error))
            except Exception as error:  # exporters raise errors of every kind
                self._note(name, f"{type(error).__name__}: {first_line(error)}")
        return forms

    def _built(self, variant: str) -> nn.Module:
        """Returns the network; an untrained one gets batch-norm statistics of random images.

        With the initial statistics, activations vanish layer by layer: outputs of files could not
        be compared, and ranges of 8-bit integers could not be measured.
        """
        network = variants.network(self._model, variant)
        if not variants.is_weights(self._model):
            shape = Shape(MIN_IMAGES, self._resolution)
            update_bn([variants.images(variant, shape)], network)
        return network.eval()

    def _note(self, name: str, reason: str) -> None:
        self._notes.append(f"{name}: {self._model} not timed: {reason}")

    def _missing(self, name: str) -> str:
        if name in RUNTIMES:
            return RUNTIMES[name].problem()
        if name == TIMM and not variants.has_timm(self._model):
            return "timm is not installed, or has no network of this name"
        return ""

    def _form(self, name: str) -> _Form:
        if name in RUNTIMES:
            return self._file(RUNTIMES[name])
        if name == TIMM:
            model, label = self._built(variants.TIMM), variants.TIMM
        else:
            plain, label = self._network, variants.OURS
            model = plain if name == EAGER else deploy(plain, compile=name == COMPILED)

        def runtime() -> str:
            chosen = getattr(model, "runtime", "eager")
            if chosen in RUNTIMES:
                return f"{chosen} {RUNTIMES[chosen].version}"
            return f"torch {torch.__version__}" + (f", {chosen}" if chosen != "eager" else "")

        return _Form(name, runtime, lambda shape: Inference(model, variants.images(label, shape)))

    def _file(self, runtime: FileRuntime) -> _Form:
        """Writes and loads a file; checks it if it is float32; returns the form that runs it."""
        format = runtime.format
        path = self._folder / f"network{format.suffix}"
        network = ExportNetwork(self._network, imagenet.MEAN, imagenet.STD)
        pixels = network.example(self._resolution, MIN_IMAGES).numpy()
        example = network.example(self._resolution)
        format.write(Job(network, example, {}, pixels if format.quantized else None), path)
        if format.load is None:
            raise BenchmarkError("its runtime does not exist on this system")
        run = format.load(path)
        # 8-bit files are not compared: random weights give all classes almost the same score, so
        # that rounding changes the predicted class.
        if not format.quantized:
            compare(run, network, example.numpy())

        def step(shape: Shape) -> Step:
            images = network.example(shape.resolution, shape.batch).numpy()
            return _FileStep(run, images)

        return _Form(runtime.name, lambda: f"{runtime.package} {runtime.version}", step)


@dataclass
class _FileStep:
    """A call of an exported file."""

    run: Run
    images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    def __call__(self) -> None:
        self.run(self.images)
