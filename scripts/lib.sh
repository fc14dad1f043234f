# Shared by the scripts: where things are. Sourced, not run.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The Python environment of the interoperation tests.
VENV=$ROOT/target/venv

step() {
    printf '== %s\n' "$*"
}

# A field of the figures that ringperf and its peers print with --json, from its input. NAME
figure() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }

# Of numbers in lines. FILE
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
