#!/bin/sh
# Repeats the experiments of README.md. Each part continues where it was interrupted.
#   FBNETV3_DATA=... projects/cifar10_jointnas/reproduce.sh [pilot|joint|noise|random|cases|finals|...]...
# Without an argument, all parts run in this order: some 500 trainings, hours on two cores, and the
# searches write what later parts read (their logs in joint/, random/, autotrain/ and pilot/, configs in
# configs/; git ignores these folders). PROCESSES=2 candidates or trainings run at a time, with one
# thread each.
set -eu
cd "$(dirname "$0")/../.."
: "${FBNETV3_DATA:?set it to the folder that contains cifar10}"
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-output/cifar10_jointnas}
PROCESSES=${PROCESSES:-2}
SEEDS=${SEEDS:-0 1 2}
HERE=projects/cifar10_jointnas
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# search NAME CONFIG [KEY VALUE]...: copies the log of each finished batch to HERE/NAME, from where a
# search continues whose run folder is lost
search() {
    name=$1 config=$2
    shift 2
    set -- --config-file "$config" "$@" SEARCH.WORKERS "$PROCESSES" OUTPUT_DIR "$OUT/$name"
    if [ ! -f "$OUT/$name/search.db" ] && [ -f "$HERE/$name/batch_000.jsonl.gz" ]; then
        set -- "$@" --restore "$HERE/$name"
    fi
    mkdir -p "$HERE/$name"
    "$PYTHON" tools/jointnas_search.py "$@" &
    pid=$!
    trap 'kill -TERM $pid; wait $pid; exit 130' INT TERM # background jobs of a shell ignore Ctrl-C
    while kill -0 $pid 2>/dev/null; do
        sleep 20
        keep "$name"
    done
    trap - INT TERM
    wait $pid
}

keep() {
    for file in "$OUT/$1"/log/batch_*.jsonl.gz; do
        [ ! -f "$file" ] || cp "$file" "$HERE/$1/"
    done
}

# trainings CSV [ARGUMENT]...
trainings() {
    table=$1
    shift
    # shellcheck disable=SC2086
    "$PYTHON" -m projects.cifar10_jointnas.trainings "$@" --csv "$HERE/$table.csv" --out "$OUT" \
        --processes "$PROCESSES" --seeds $SEEDS
}

# the first batch with twice the epochs, from which the settings of the others were derived
pilot() {
    search pilot model_zoo/search/fbnetv3_cifar10_nano.yaml SEARCH.BUDGETS "[]" SEARCH.ITERATIONS 1 \
        SEARCH.FINALISTS 0 SEARCH.HOLD_OUT 4000 SOLVER.MAX_EPOCHS 10.0 SOLVER.WARMUP_EPOCHS 1.0
}

joint() {
    search joint model_zoo/search/fbnetv3_cifar10_nano.yaml
    "$PYTHON" -m projects.cifar10_jointnas.times "$OUT/joint"
}

noise() {
    "$PYTHON" -m projects.cifar10_jointnas.noise "$OUT/joint"
}

# The first batch does not depend on a predictor, so its trainings are copied from the joint search.
random() {
    "$PYTHON" -m projects.cifar10_jointnas.runs "$HERE/joint" "$OUT/random/candidates"
    search random model_zoo/search/fbnetv3_cifar10_nano.yaml \
        SEARCH.PREDICTOR random SEARCH.ITERATIONS 5 SEARCH.FINALISTS 0
}

cases() {
    "$PYTHON" -m projects.cifar10_jointnas.cases
}

finals() {
    trainings finals "$HERE"/configs/*M.yaml
}

pairing() {
    trainings pairing "$HERE"/configs/*_recipe.yaml
}

autotrain() {
    search autotrain "$HERE/autotrain.yaml"
}

transfer() {
    "$PYTHON" -m projects.cifar10_jointnas.transfer
    trainings transfer "$HERE"/configs/transfer/*.yaml --opts SOLVER.MAX_EPOCHS 10.0
}

family() {
    "$PYTHON" -m projects.cifar10_jointnas.family
    trainings family "$HERE"/configs/family/*M.yaml "$HERE"/configs/family/*_searched.yaml \
        "$HERE"/configs/family/*_plain.yaml "$HERE"/configs/family/*_quarter.yaml
}

# the weights of the zoo: the winners with their own recipes, trained on all images
zoo() {
    for budget in 3M 4.5M 6M 8M; do
        "$PYTHON" tools/train_net.py --resume --config-file "$HERE/configs/joint_$budget.yaml" \
            DATA.TRAIN_LIMIT 0 SOLVER.MAX_EPOCHS 40.0 SOLVER.IMS_PER_BATCH 256 \
            SOLVER.REFERENCE_BATCH 256 TEST.EVAL_EPOCHS 10.0 OUTPUT_DIR "$OUT/zoo/$budget"
    done
}

pretraining() {
    "$PYTHON" -m projects.cifar10_jointnas.pretraining
}

figures() {
    "$PYTHON" -m projects.cifar10_jointnas.figures
}

PARTS="pilot joint noise random cases finals pairing autotrain transfer family zoo pretraining figures"
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $PARTS
for part; do
    case " $PARTS " in
        *" $part "*) "$part" ;;
        *) echo "unknown part $part; allowed: $PARTS" >&2; exit 2 ;;
    esac
done
