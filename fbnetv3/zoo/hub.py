"""A classifier as a model of Hugging Face's hub (extra ``hub``).

``HubClassifier`` has ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of
``huggingface_hub.PyTorchModelHubMixin``. A repository has ``config.json``, a model card and
``model.safetensors``. ``hf://OWNER/NAME`` and ``fbnetv3-predict --weights`` can read this last file
too.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fbnetv3 import modeling
from fbnetv3.arch import Arch
from fbnetv3.data.transforms import EvalTransform
from fbnetv3.io import atomic_write
from fbnetv3.requires import require
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.hub import CONFIG_FILE, WEIGHTS_FILE, download_weights
from fbnetv3.weights.load import read_weights
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import arch_of
from fbnetv3.weights.records import find_record, is_weights_name
from fbnetv3.weights.safetensors_header import sorted_header
from fbnetv3.zoo.cards import CLASSIFICATION, CardFacts, card_text, facts_of_record
from fbnetv3.zoo.classifier import Classifier, from_zoo
from fbnetv3.zoo.repositories import classifier_config

require("huggingface_hub", "hub")

from huggingface_hub import ModelCard, PyTorchModelHubMixin  # noqa: E402

_PREPROCESSING = ("resolution", "resize", "interpolation", "mean", "std")
_REQUIRED = ("arch", "classes", *_PREPROCESSING)
# arguments of from_pretrained that are passed on to the download
_DOWNLOAD = ("cache_dir", "force_download", "local_files_only", "token")


class HubClassifier(
    nn.Module, PyTorchModelHubMixin, library_name="fbnetv3", pipeline_tag=CLASSIFICATION
):
    """A classifier that is saved in, and loaded from, a repository of Hugging Face's hub.

    The arguments are the content of ``config.json``.

    Args:
        arch: Table of an FBNet, or the name of another library's network.
        classes: Names of the classes, in the order of the logits.
        resolution: Side of the centre crop in pixels, the input of the network.
        resize: Length in pixels to which the shorter side of an image is resized before the crop.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel, for pixels in 0..1.
        several_labels: Whether an image may have several classes.

    Attributes:
        network: The network.
        facts: Content of the model card.

    Raises:
        WeightsFileError: A value has a type that is not allowed, or is out of range.
        ArchError: The table is not that of an architecture.

    Example:
        >>> model = HubClassifier.from_weights("output/flowers")
        >>> model.push_to_hub("OWNER/flowers")
        >>> HubClassifier.from_pretrained("OWNER/flowers").classifier().top("photo.jpg")
    """

    def __init__(
        self,
        arch: str | dict[str, Any],
        classes: list[str],
        resolution: int,
        resize: int,
        interpolation: str,
        mean: list[float],
        std: list[float],
        several_labels: bool = False,
    ) -> None:
        super().__init__()
        saved = {"resolution": resolution, "resize": resize, "interpolation": interpolation}
        saved |= {"mean": mean, "std": std, "classes": classes}
        check_metadata(saved, CONFIG_FILE)
        self.classes = tuple(map(str, classes))
        self.transform = EvalTransform(resolution, resize, interpolation, mean, std)
        self.several_labels = several_labels
        self._config = {"arch": arch, **saved, "several_labels": several_labels}
        table = arch_of({"arch": arch}, None, CONFIG_FILE)
        self.network = modeling.build_model(table, num_classes=len(self.classes))
        self.facts = CardFacts(
            title=table.name if isinstance(table, Arch) else table,
            task=CLASSIFICATION,
            licence="unknown",
            classes=len(self.classes),
            preprocessing={key: saved[key] for key in _PREPROCESSING},
            arch=table if isinstance(table, Arch) else None,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, (N, classes), of normalised images (N, 3, resolution, resolution)."""
        logits: Tensor = self.network(images)
        return logits

    def classifier(self) -> Classifier:
        """Returns a classifier of images of any size, which uses the same network object."""
        return Classifier(
            self.network.eval(), self.transform, self.classes, self.facts.title, self.several_labels
        )

    @classmethod
    def from_weights(
        cls, source: str | os.PathLike[str], *, licence: str = "Apache-2.0"
    ) -> HubClassifier:
        """Returns the classifier of weights of the zoo or of a finished training.

        Args:
            source: ``NAME.TAG`` of the zoo, a file that training exported, or the folder of a run.
            licence: Licence to state for the weights of a training. It is ignored for weights of
                the zoo, whose licences are known.

        Raises:
            FBNetError: The weights cannot be found, read or downloaded, or are no classifier.
        """
        name = os.fspath(source)
        if is_weights_name(name) and not Path(name).exists():
            return cls._from_zoo(name)
        weights = read_weights(source)
        if weights.is_detector:
            raise WeightsFileError(
                f"{name} holds a detector, which has no from_pretrained; write its repository with "
                "fbnetv3-zoo card RUN, and load it with fbnetv3.build_model('hf://OWNER/NAME')"
            )
        model = cls(**classifier_config(weights, source))
        load_state_dict(model.network, weights.tensors, source=weights.source)
        model.facts = dataclasses.replace(model.facts, licence=licence)
        return model.eval()

    @classmethod
    def _from_zoo(cls, name: str) -> HubClassifier:
        record, classifier = find_record(name), from_zoo(name)
        config = {key: getattr(record, key) for key in _PREPROCESSING}
        config |= {"mean": list(record.mean), "std": list(record.std)}
        config |= {"classes": list(classifier.classes), "several_labels": record.several_labels}
        model = cls(arch=record.arch().to_dict(), **config)
        model.network = classifier.model
        model.facts = facts_of_record(record)
        return model.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes model.safetensors as a training does, with the network's config as metadata."""
        metadata = {key: json.dumps(value) for key, value in self._config.items()}
        metadata |= {"format": "fbnetv3", "format_version": "1"}
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        with atomic_write(save_directory / WEIGHTS_FILE) as temporary:
            temporary.write_bytes(sorted_header(safetensors.torch.save(tensors, metadata)))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        map_location: str = "cpu",
        **values: Any,
    ) -> HubClassifier:
        """Builds the network that config.json describes and loads model.safetensors into it."""
        options = {key: values.pop(key) for key in _DOWNLOAD if key in values}
        folder = Path(model_id)
        if folder.is_dir():
            path = folder / WEIGHTS_FILE
        else:
            path = download_weights(model_id, revision, **options)
        if missing := [key for key in _REQUIRED if key not in values]:
            raise WeightsFileError(
                f"{CONFIG_FILE} of {model_id} lacks {', '.join(missing)}; use a repository that "
                "HubClassifier or `fbnetv3-zoo card` wrote"
            )
        model = cls(**values)
        load_state_dict(model.network, read_tensors(path)[0], source=os.fspath(path))
        return model.to(torch.device(map_location)).eval()

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the weights, the config and the model card to a repository of the hub.

        Args:
            repo_id: ``OWNER/NAME``; the repository is created if there is none.
            options: Further arguments of ``PyTorchModelHubMixin.push_to_hub``, such as ``private``,
                ``token`` and ``branch``.

        Returns:
            Address of the commit.
        """
        card = {"repo_id": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        url: str = super().push_to_hub(repo_id, model_card_kwargs=card, **options)
        return url

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Returns the model card; ``save_pretrained`` and ``push_to_hub`` write it as README.md."""
        repository = kwargs.get("repo_id", self.facts.repository)
        return ModelCard(card_text(dataclasses.replace(self.facts, repository=repository)))
