# Shared by the scripts: where things are. Sourced, not run.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The Python environment of the interoperation tests.
VENV=$ROOT/target/venv

step() {
    printf '== %s\n' "$*"
}
