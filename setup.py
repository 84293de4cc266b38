"""Installs fbnetv3; what it needs is stated here, once."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Ranges, with the version that the tests last ran with behind each. detectron2 has no official
# package: `fbnetv3-install-detectron2` (or `make`) brings it; classifiers work without it.
REQUIRES = [
    # older ones could be made to run code by torch.load(weights_only=True): CVE-2025-32434 before
    # 2.6, CVE-2026-24747 before 2.10
    "torch>=2.10,<3",  # 2.14.1
    "torchvision>=0.25,<1",  # 0.29.1
    "numpy>=1.26,<3",  # 2.4.6
    "scipy>=1.11,<2",  # 1.17.1
    "pillow>=10.3",  # 13.0.0; older ones overflow on crafted images
    "pyyaml>=6",  # 6.0.3
    "fvcore>=0.1.5.post20221221",  # 0.1.5.post20221221
    "iopath>=0.1.9,<0.2",  # 0.1.10
    "yacs>=0.1.8,<0.2",  # 0.1.8
    "safetensors>=0.4,<1",  # 0.8.0
    "optuna>=3.6,<6",  # 5.0.0
    "sqlalchemy>=2,<3",  # 2.1.9; Optuna's, and the locks of studies
    # deploy(compile=True) on CPUs
    "onnx>=1.16,<2",  # 1.23.2
    "onnxruntime>=1.18,<2",  # 1.32.0
    "rich>=13",  # 15.0.0
    "matplotlib>=3.8,<4",  # 3.11.2
    "jinja2>=3.1,<4",  # 3.1.6
    "markupsafe>=2.1,<4",  # 3.0.4
    "tensorboard>=2.15,<3",  # 2.21.0
    "scikit-learn>=1.4,<2",  # 1.9.1
    "pycocotools>=2.0.7,<3",  # 2.0.11
    "faster-coco-eval>=1.6.5,<2",  # 1.8.0; the same numbers as pycocotools
    # detectron2's own needs, so that its installation downloads nothing else
    "omegaconf>=2.3,<3",  # 2.3.1
    "hydra-core>=1.3,<2",  # 1.3.8
    "termcolor>=2",  # 3.3.0
    "tabulate>=0.9",  # 0.10.0
    "fsspec>=2024.2",  # 2026.9.0
    "cloudpickle>=3",  # 3.1.2
    "tqdm>=4.66",  # 4.70.1
    # detectron2's sdist is built with these, without isolation
    "setuptools>=77",  # 84.2.1
    "wheel>=0.43",  # 0.48.0
]
EXTRAS = {
    "ray": ["ray>=2.30,<3"],  # 2.60.0; SEARCH.EXECUTOR ray
    "s3": ["s3fs>=2024.2"],  # 2026.9.0; SEARCH.CANDIDATES s3://...
    "timm": ["timm>=1.0.9,<2"],  # 1.0.31; MODEL.ARCH timm/NAME
    "postgres": ["psycopg[binary]>=3.1,<4"],  # 3.3.9; SEARCH.STORAGE postgresql://...
    # what projects/search_quality compares with, beside what is needed anyway
    "peers": [
        "cmaes>=0.10",  # 0.13.1
        "smac>=2.2",  # 2.4.1
    ],
    "dev": [
        "build>=1.2",  # 1.6.1
        "flask>=3",  # 3.1.3; with the two below a server of S3 for tests
        "flask-cors>=4",  # 6.0.5
        "moto>=5",  # 5.2.5
        "hypothesis>=6.100",  # 6.170.15
        "mypy>=1.11",  # 2.4.1
        "pre-commit>=3.7",
        "psycopg[binary]>=3.1,<4",  # as the extra postgres
        "pytest>=8.2",  # 9.2.0
        "pytest-timeout>=2.3",  # 2.4.0
        "pytest-xdist>=3.6",  # 3.8.0
        "ray>=2.30,<3",  # 2.60.0
        "s3fs>=2024.2",  # as the extra s3
        "ruff>=0.6",  # 0.17.6
        "timm>=1.0.9,<2",  # as the extra timm
        "types-PyYAML>=6",  # 6.0.12.20261113
    ],
}
COMMANDS = {
    "fbnetv3-benchmark": "benchmark",
    "fbnetv3-install-detectron2": "detectron2.install",
    "fbnetv3-predict": "predict",
    "fbnetv3-search": "search",
    "fbnetv3-train": "train",
    "fbnetv3-zoo": "zoo",
}
DATA = [
    "*.yaml",
    "**/*.yaml",
    "*.json",
    "**/*.json",
    "*.safetensors",
    "**/*.safetensors",
    # of the search's report
    "*.html",
    "*.css",
    "*.js",
]


def long_description() -> str:
    """Returns the README's text, empty where the tree has none."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="fbnetv3",
    version="0.1.0",
    description="FBNetV3: model zoo, training and JointNAS, joint architecture-recipe search",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The fbnetv3 authors",
    keywords=["fbnet", "neural architecture search", "image classification", "pytorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["fbnetv3", "fbnetv3.*"]), "fbnetv3.model_zoo"],
    package_dir={"fbnetv3.model_zoo": "model_zoo"},
    package_data={"": DATA, "fbnetv3": ["py.typed"]},
    include_package_data=False,
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            f"{command} = fbnetv3.cli.{module}:cli" for command, module in COMMANDS.items()
        ]
    },
)
