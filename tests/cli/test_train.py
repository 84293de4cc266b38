"""The command line of training, in this process."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fbnetv3.cli import run_main
from fbnetv3.cli.train import main, make_parser

ROOT = Path(__file__).resolve().parents[2]
ARCH = """\
name: tiny
resolution: 16
num_classes: 10
width_divisor: 8
rows:
  - {stage: 0, op: conv, k: 3, c: 8, n: 1, s: 2, act: hswish}
  - {stage: 1, op: mbpool, e: 2, c: 16, n: 1, s: 1, act: hswish}
"""
TINY = """\
MODEL: {DEVICE: cpu}
DATASETS: {TRAIN: [digits_train], TEST: [digits_test]}
DATALOADER: {NUM_WORKERS: 0}
INPUT: {RESIZE: 16, TRAIN_CROP: padded}
DATA: {TRAIN_LIMIT: 60}
SOLVER: {IMS_PER_BATCH: 20, MAX_EPOCHS: 1, WARMUP_EPOCHS: 0}
"""


class Shell:
    """Runs the command line on a tiny config; its run folder is ``out``."""

    def __init__(self, folder: Path, capsys: Any) -> None:
        self.folder, self.out, self._capsys = folder, folder / "out", capsys
        (folder / "arch.yaml").write_text(ARCH)
        (folder / "tiny.yaml").write_text(TINY)

    def __call__(self, *arguments: str, out: str | None = None) -> tuple[int, str, str]:
        base = ["--config-file", str(self.folder / "tiny.yaml"), "MODEL.ARCH"]
        values = [str(self.folder / "arch.yaml"), "OUTPUT_DIR", out or str(self.out)]
        status = run_main(main, [*base, *values, *arguments])
        return (status, *self._capsys.readouterr())

    def error(self, *arguments: str, **options: Any) -> str:
        """Returns the one line that a failing command prints last."""
        status, _, stderr = self(*arguments, **options)
        assert status == 2
        assert "Traceback" not in stderr
        last = stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        return last


@pytest.fixture
def shell(tmp_path: Path, capsys: Any) -> Shell:
    return Shell(tmp_path, capsys)


def test_train_evaluate_resume_overwrite(shell: Shell) -> None:
    status, stdout, stderr = shell()
    assert status == 0
    scores = json.loads(stdout)
    assert {"val/top1", "val/top1_ema", "val/loss"} <= scores.keys()
    assert "Training plan" in stderr
    assert "digits_test: 360 images, 10 classes: 0 36" in " ".join(stderr.split())
    assert "iteration 3" in (shell.out / "log.txt").read_text()
    assert json.loads(shell("--eval-only")[1]) == scores
    assert "--resume" in shell.error()
    assert "--overwrite" in shell.error()
    assert json.loads(shell("--resume")[1]) == scores
    (shell.out / "notes.txt").write_text("kept")
    (shell.out / "model_best.safetensors").write_text("kept")
    assert json.loads(shell("--overwrite")[1]) == scores
    assert len(list(shell.out.glob("events.*"))) == 1
    assert (shell.out / "notes.txt").exists()
    assert (shell.out / "model_best.safetensors").exists()


def test_the_data_sets_of_a_classifier_are_checked(shell: Shell) -> None:
    status, stdout, _ = shell("--check-data")
    assert status == 0
    words = [line.split(":")[0] for line in stdout.splitlines()]
    assert words == ["digits_train", "samples", "digits_test", "samples"]
    pictures = sorted(shell.out.iterdir())
    assert [path.name for path in pictures] == ["samples_test.png", "samples_train.png"]
    for path in pictures:
        path.unlink()
    shell.out.rmdir()
    for number in range(3):
        path = shell.folder / "set" / "[/a]" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image" if number else "no image either")
    both = ["DATASETS.TRAIN", "set", "DATASETS.TEST", "set", "DATA.TRAIN_LIMIT", "0"]
    paths = (str(shell.folder / v) if v == "set" else v for v in both)
    status, stdout, stderr = shell("--check-data", *paths)
    assert status == 2
    assert stdout.count("fault: ") == 6  # of both data sets
    assert stderr.count("3 of 3 images are broken") == 2
    assert "the lines above name them" in stderr
    assert not shell.out.exists()


def test_a_stream_is_not_called_valid(shell: Shell, tmp_path: Path) -> None:
    """A config names no streams, whose images are not checked."""
    code = tmp_path / "my_stream.py"
    code.write_text(
        "from fbnetv3 import register_dataset\nfrom fbnetv3.data import ImageStream\n\n\n"
        '@register_dataset("a_stream_to_check")\ndef stream():\n'
        "    return ImageStream([], 1, num_classes=10)\n"
    )
    line = shell.error("--check-data", "--import", str(code), "DATASETS.TRAIN", "a_stream_to_check")
    assert "data set a_stream_to_check is a stream; pass it to fbnetv3.train" in line


def test_the_images_of_a_detector_are_decoded(shell: Shell, capsys: Any) -> None:
    pytest.importorskip("detectron2")
    content = io.BytesIO()
    Image.effect_noise((32, 32), 50).convert("RGB").save(content, "JPEG")
    ids, image = range(40), {"width": 32, "height": 32}  # more images than the picture shows
    for i in ids:
        (shell.folder / f"{i}.jpg").write_bytes(content.getvalue())
    (shell.folder / "39.jpg").write_bytes(content.getvalue()[:-400])  # its header is intact
    box = {"category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    coco = {
        "images": [{"id": i, "file_name": f"{i}.jpg", **image} for i in ids],
        "annotations": [{"id": i + 1, "image_id": i, **box} for i in ids],
        "categories": [{"id": 1, "name": "a"}],
    }
    (shell.folder / "boxes.json").write_text(json.dumps(coco))
    entry = ["mine", str(shell.folder / "boxes.json"), str(shell.folder)]
    config = ["--config-file", "model_zoo/detection/retinanet_fbnetv3_a0_digits.yaml"]
    data = ["DATASETS.COCO", str([entry]), "DATASETS.TRAIN", "mine", "DATASETS.TEST", "mine"]
    more = ["OUTPUT_DIR", str(shell.out), "DATA.CHECK_IMAGES", "False"]
    assert run_main(main, [*config, "--check-data", *data, *more]) == 2
    stdout, stderr = capsys.readouterr()
    assert "valid" not in stdout
    assert "39.jpg" in stderr.strip().splitlines()[-1]


def test_options_may_follow_key_value_pairs(shell: Shell) -> None:
    assert "nothing to evaluate" in shell.error("SEED", "3", "--eval-only")


def test_evaluation_leaves_no_folder(shell: Shell) -> None:
    shell.error("--eval-only")
    assert not shell.out.exists()


@pytest.mark.parametrize("place", ["file/out", "/proc/out"])
def test_an_output_that_cannot_be_written(shell: Shell, place: str) -> None:
    (shell.folder / "file").write_text("")
    out = str(shell.folder / place)
    line = shell.error(out=out)
    assert out in line
    assert "writable" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["SOLVER.BASE_LRR", "1"], "did you mean BASE_LR"),
        (["SEED"], "'SEED' has no value"),
        (["DATASETS.TRAIN", "nowhere"], "nowhere"),
        (["SOLVER.BASE_LR", "-1"], "SOLVER.BASE_LR=-1.0"),
        (["--num-processes", "0"], "--num-processes 0"),
        (["--num-machines", "2"], "--dist-url"),
        (["MODEL.DEVICE", "cuda:77"], "MODEL.DEVICE"),
        (["MODEL.WEIGHTS", "nowhere.pt"], "nowhere.pt"),
        (["SOLVER.IMS_PER_BATCH", "61"], "SOLVER.IMS_PER_BATCH"),
        (["WRITERS", "['nothing']"], "WRITERS"),
        (["MODEL.NUM_CLASSES", "3"], "MODEL.NUM_CLASSES"),
    ],
)
def test_user_errors_are_one_line(shell: Shell, arguments: list[str], says: str) -> None:
    assert says in shell.error(*arguments)
    assert not shell.out.exists()


@pytest.mark.parametrize("option", [[], ["--resume"], ["--overwrite"]])
def test_a_refused_training_leaves_nothing(shell: Shell, option: list[str]) -> None:
    # a key without effect is warned of before the weights are missing
    shell.error(*option, "SOLVER.GAMMA", "0.5", "MODEL.WEIGHTS", "nowhere.pt")
    assert not shell.out.exists()


def test_a_refused_training_does_not_remove_an_earlier_run(shell: Shell) -> None:
    assert shell()[0] == 0
    before = {path: path.read_bytes() for path in shell.out.iterdir()}
    shell.error("--overwrite", "MODEL.WEIGHTS", "nowhere.pt")
    assert {path: path.read_bytes() for path in shell.out.iterdir()} == before
    # a new run that starts from its weights would lose them if it were killed
    weights = str(shell.out / "model_ema.safetensors")
    assert "another OUTPUT_DIR" in shell.error("--overwrite", "MODEL.WEIGHTS", weights)
    assert {path: path.read_bytes() for path in shell.out.iterdir()} == before


def test_a_missing_config(capsys: Any) -> None:
    assert run_main(main, ["--config-file", "fbnetv3_gg.yaml"]) == 2
    assert "fbnetv3_g.yaml" in capsys.readouterr().err


_CHECK = "--check-data"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--resume", "--overwrite"], "--resume continues a run: leave out --overwrite"),
        (["--eval-only", "--resume"], "--eval-only does not train: leave out --resume"),
        (["--eval-only", "--overwrite"], "--eval-only does not train: leave out --overwrite"),
        ([_CHECK, "--eval-only"], "--check-data only decodes images: leave out --eval-only"),
        ([_CHECK, "--resume"], "--check-data only decodes images: leave out --resume"),
        ([_CHECK, "--overwrite"], "--check-data only decodes images: leave out --overwrite"),
        ([_CHECK, "--ignore-class-names"], "loads no weights: leave out --ignore-class-names"),
        ([_CHECK, "--num-processes", "2"], "runs in one process: leave out --num-processes"),
        ([_CHECK, "--num-machines", "2"], "runs in one process: leave out --num-machines"),
        ([_CHECK, "--machine-rank", "1"], "runs in one process: leave out --machine-rank"),
        ([_CHECK, "--dist-url", "tcp://a:1"], "runs in one process: leave out --dist-url"),
        (["--profile", "2", "--eval-only"], "--profile traces a training: leave out --eval-only"),
        (["--profile", "2", _CHECK], "--profile traces a training: leave out --check-data"),
        (["--profile", "-1"], "--profile -1: give a number of steps, 1 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_contradict_each_other(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--config-file", "missing.yaml", *options])
    assert caught.value.code == 2
    assert f"{says}\n" in capsys.readouterr().err


def test_defaults_that_are_given_contradict_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    one_process = ["--num-processes", "1", "--num-machines", "1", "--profile", "0"]
    assert run_main(main, ["--config-file", "missing.yaml", _CHECK, *one_process]) == 2
    assert "missing.yaml" in capsys.readouterr().err


def test_the_default_folder_is_named_after_the_config(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(shell.folder)
    arguments = ["--config-file", "tiny.yaml", "--eval-only", "MODEL.ARCH", "arch.yaml"]
    assert run_main(main, arguments) == 2
    assert "output/tiny has no checkpoint" in capsys.readouterr().err


def test_every_option_has_a_help_text() -> None:
    for action in make_parser()._actions:
        assert action.help or action.dest == "opts"


def test_help_is_quick_and_needs_no_detectron2() -> None:
    script = str(ROOT / "tools" / "train_net.py")
    code = (
        "import sys; sys.modules['detectron2'] = None; sys.argv = ['x', '--help']; "
        f"import runpy; runpy.run_path({script!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--config-file" in done.stdout


def test_the_config_of_a_search_names_its_command(capsys: Any) -> None:
    assert run_main(main, ["--config-file", "model_zoo/search/digits.yaml"]) == 2
    message = capsys.readouterr().err
    assert "fbnetv3-search --config-file model_zoo/search/digits.yaml" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("part", ["TRAIN", "TEST"])
def test_a_missing_data_set_is_found_before_processes_start(
    options: Any, tmp_path: Path, capfd: Any, part: str
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("VERSION: 2\n")
    values = {**options(), f"DATASETS.{part}": "no_such_data"}
    pairs = [str(x) for pair in values.items() for x in pair]
    arguments = ["--config-file", str(config), "--num-processes", "8", *pairs]
    assert run_main(main, arguments) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error")]
    assert line.startswith("error: data set 'no_such_data'")  # and not of a rank
