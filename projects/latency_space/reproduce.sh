#!/bin/sh
# Repeats the study of README.md. Each part continues where it was interrupted, and is skipped once it is finished.
#   FBNETV3_DATA=... projects/latency_space/reproduce.sh [latency|search|hand_made|finals|table]...
# Without an argument, all parts run in this order, with one thread. ITERATIONS, BATCH, SEEDS and FINALISTS make a
# smaller study, DRY_RUN=1 prints the commands instead.
set -eu
cd "$(dirname "$0")/../.."
: "${FBNETV3_DATA:?set it to the folder that contains cifar10}"
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-output/latency_space}
SEEDS=${SEEDS:-0 1 2} # of the trainings
SEARCH_SEEDS=${SEARCH_SEEDS:-$SEEDS}
ITERATIONS=${ITERATIONS:-4}
BATCH=${BATCH:-24}
FINALISTS=${FINALISTS:-4}
LOW=${LOW:-1.4} # milliseconds
HIGH=${HIGH:-1.8}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
SPACES="latency_cifar10 latency_cifar10_mbconv"
run() { if [ -n "${DRY_RUN:-}" ]; then echo "$@"; else "$@"; fi; }

# Both spaces use the same table: that of the larger one has the blocks of its twin, too.
latency() {
    [ -f "$OUT/latency.json" ] || run "$PYTHON" tools/benchmark.py --latency-table "$OUT/latency.json" \
        --config-file model_zoo/search/latency_cifar10.yaml
}

search() {
    for seed in $SEARCH_SEEDS; do
        for space in $SPACES; do
            run "$PYTHON" tools/jointnas_search.py --config-file "model_zoo/search/$space.yaml" SEED "$seed" \
                SEARCH.LATENCY_TABLE "$OUT/latency.json" \
                SEARCH.CONSTRAINTS "['$LOW <= latency_ms <= $HIGH']" \
                SEARCH.ITERATIONS "$ITERATIONS" SEARCH.BATCH_SIZE "$BATCH" SEARCH.FINALISTS "$FINALISTS" \
                OUTPUT_DIR "$OUT/${space}_seed$seed"
        done
    done
}

# the networks of tables, scaled to the latency of the winners
hand_made() {
    run "$PYTHON" -m projects.latency_space.hand_made "$OUT" --milliseconds "$HIGH"
}

# full trainings of the winners and of the hand-made networks, each with three seeds
finals() {
    run mkdir -p "$OUT/configs/archs"
    for seed in $SEARCH_SEEDS; do
        for space in $SPACES; do
            name=${space}_seed$seed
            run cp "$OUT/$name/best_arch.yaml" "$OUT/configs/archs/$name.yaml"
            # The config names its architecture relative to itself.
            run cp "$OUT/$name/best.yaml" "$OUT/configs/$name.yaml"
            run sed -i "s|best_arch.yaml|archs/$name.yaml|" "$OUT/configs/$name.yaml"
        done
    done
    # shellcheck disable=SC2086
    run "$PYTHON" -m projects.cifar10_jointnas.trainings "$OUT"/configs/*.yaml --csv "$OUT/finals.csv" \
        --out "$OUT/finals" --processes 1 --seeds $SEEDS
}

table() {
    run "$PYTHON" -m projects.latency_space.table "$OUT"
}

PARTS="latency search hand_made finals table"
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $PARTS
for part; do
    case " $PARTS " in
        *" $part "*) "$part" ;;
        *) echo "unknown part $part; allowed: $PARTS" >&2; exit 2 ;;
    esac
done
