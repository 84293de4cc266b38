#!/bin/sh
# Repeats the study of README.md. Each part continues where it was interrupted, and is skipped once it is
# finished.
#   FBNETV3_DATA=... projects/bccd_search/reproduce.sh [search|hand_made|winner|pretrained|table]...
# Without an argument, all parts run in this order, with one thread.
set -eu
cd "$(dirname "$0")/../.."
: "${FBNETV3_DATA:?set it to the folder that contains bccd}"
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-output/bccd_search}
SEEDS=${SEEDS:-0 1 2}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
HAND_MADE=model_zoo/detection/retinanet_fbnetv3_a0_bccd.yaml
# The hand-made config at 160 px, the resolution of the winner: sizes of images and anchors times 160 / 272.
SIZES="[[9.412, 11.858, 14.94], [23.529, 29.645, 37.351], [47.059, 59.29, 74.701], \
[94.118, 118.581, 149.402], [188.235, 237.162, 298.804]]"

# train NAME SEED CONFIG [KEY VALUE]...: trains once, and scores the averaged weights on the test set
train() {
    folder=$OUT/$1_seed$2 seed=$2 config=$3
    shift 3
    [ ! -f "$folder/test.json" ] || return 0
    "$PYTHON" tools/train_net.py --resume --config-file "$config" "$@" SEED "$seed" OUTPUT_DIR "$folder"
    "$PYTHON" tools/train_net.py --eval-only --config-file "$folder/config.yaml" \
        MODEL.WEIGHTS "$folder/model_ema.safetensors" DATASETS.TEST "('bccd_test',)" \
        OUTPUT_DIR "$folder/test" > "$folder/test.part"
    tail -n 1 "$folder/test.part" > "$folder/test.json.part"
    mv "$folder/test.json.part" "$folder/test.json"
}

at_160_px() {
    name=$1 weights=$2
    for seed in $SEEDS; do
        train "$name" "$seed" "$HAND_MADE" MODEL.WEIGHTS "$weights" TEST.EVAL_EPOCHS 6.0 \
            INPUT.MIN_SIZE_TRAIN "(132, 151, 169, 188)" INPUT.MIN_SIZE_TEST 160 \
            MODEL.ANCHOR_GENERATOR.SIZES "$SIZES"
    done
}

search() {
    "$PYTHON" tools/jointnas_search.py --config-file model_zoo/search/retinanet_bccd.yaml \
        OUTPUT_DIR "$OUT/search"
}

hand_made() {
    at_160_px hand_made ""
}

pretrained() {
    at_160_px pretrained zoo://fbnetv3_a0.cifar10
}

winner() {
    for seed in $SEEDS; do
        train winner "$seed" "$OUT/search/best.yaml"
    done
}

table() {
    "$PYTHON" -m projects.bccd_search.table "$OUT"
}

if [ $# -eq 0 ]; then set -- search hand_made winner pretrained table; fi
for part in "$@"; do "$part"; done
