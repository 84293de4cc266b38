#!/bin/sh
# Repeats the experiments of README.md. Each part continues where it was interrupted, and is skipped once it
# is finished.
#   FBNETV3_DATA=... projects/retinanet_ema/reproduce.sh [digits|bccd|lr|coco_r50|coco_a0|step_time|figures]...
# Without an argument, all parts run in this order, with one thread (set OMP_NUM_THREADS for more). SEEDS="0"
# runs the first seed only.
set -eu
cd "$(dirname "$0")/../.."
: "${FBNETV3_DATA:?set it to the folder that contains bccd and coco_subset}"
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-output/retinanet_ema}
SEEDS=${SEEDS:-0 1 2}
HERE=projects/retinanet_ema
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# train FOLDER CONFIG [KEY VALUE]...
train() {
    folder=$1 config=$2
    shift 2
    [ -f "$OUT/$folder/done" ] && return
    "$PYTHON" tools/train_net.py --resume --config-file "model_zoo/detection/$config.yaml" \
        "$@" OUTPUT_DIR "$OUT/$folder"
    touch "$OUT/$folder/done"
}

# score FOLDER CONFIG DATASET: scores the EMA weights, once
score() {
    [ -f "$OUT/$1/$3.json" ] && return
    "$PYTHON" tools/train_net.py --eval-only --config-file "model_zoo/detection/$2.yaml" \
        MODEL.WEIGHTS "$OUT/$1/model_ema.safetensors" DATASETS.TEST "('$3',)" \
        OUTPUT_DIR "$OUT/$1/$3" > "$OUT/$1/$3.part"
    mv "$OUT/$1/$3.part" "$OUT/$1/$3.json"
    cat "$OUT/$1/$3.json"
}

digits() {
    train digits retinanet_fbnetv3_a0_digits
}

bccd() {
    for seed in $SEEDS; do
        train "bccd_seed$seed" retinanet_fbnetv3_a0_bccd SEED "$seed"
        score "bccd_seed$seed" retinanet_fbnetv3_a0_bccd bccd_test
    done
}

# half as long with three times the learning rate, where Fig. 8 suggests a larger lead of EMA
lr() {
    train bccd_lr0.12_seed0 retinanet_fbnetv3_a0_bccd SOLVER.BASE_LR 0.12 SOLVER.MAX_EPOCHS 15.0 \
        TEST.EVAL_EPOCHS 1.5
}

# all images are used: those without boxes are background
coco_r50() {
    train coco_r50 retinanet_R_50_FPN_3x MODEL.WEIGHTS "" MODEL.BACKBONE.FREEZE_AT 0 \
        MODEL.RESNETS.NORM BN DATASETS.TRAIN "('coco_subset_train',)" \
        DATASETS.TEST "('coco_subset_val',)" DATALOADER.FILTER_EMPTY_ANNOTATIONS False \
        DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN "(256,)" INPUT.MIN_SIZE_TEST 256 \
        SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_EPOCHS 1.0 SOLVER.WARMUP_EPOCHS 0.3 SOLVER.STEPS "()" \
        SOLVER.CHECKPOINT_EPOCHS 0.1 TEST.EVAL_EPOCHS 1.0
}

coco_a0() {
    train coco_a0 retinanet_fbnetv3_a0_coco_subset
}

step_time() {
    "$PYTHON" -m projects.retinanet_ema.step_time \
        --config-file detection/retinanet_fbnetv3_a0_bccd.yaml --steps 60
}

figures() {
    "$PYTHON" -m projects.retinanet_ema.figures "$OUT"/bccd_seed* --name "$HERE/bccd"
    [ ! -d "$OUT/bccd_lr0.12_seed0" ] ||
        "$PYTHON" -m projects.retinanet_ema.figures "$OUT"/bccd_lr0.12_seed* --name "$HERE/bccd_lr0.12"
}

[ $# -gt 0 ] || set -- digits bccd lr coco_r50 coco_a0 step_time figures
for part; do
    case $part in
        digits | bccd | lr | coco_r50 | coco_a0 | step_time | figures) "$part" ;;
        *) echo "unknown part $part; allowed: digits bccd lr coco_r50 coco_a0 step_time figures" >&2; exit 2 ;;
    esac
done
