#!/bin/bash
# Instructions of the protocol engine, by scenario and part, counted by callgrind: the same in every run, so that the cost of a change shows
# exactly. Without an option it prints them, and the processor time of a handshake in memory.
# --check compares them with perf/engine-costs.txt and fails where one has grown by more than 2 %. --renew writes that file anew, in the same
# commit as the change that costs more, or less: its diff says how much. Cryptography is not counted: its instructions are other ones on other
# processors, and not ours. All but hashing, which derives keys, and of which the engine decides how much there is: it has lines of its own.
# Usage: engine-cost.sh [--check | --renew]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
mode=${1:-}
[[ $# -le 1 && $mode =~ ^(--check|--renew)?$ ]] || { echo 'usage: engine-cost.sh [--check | --renew]' >&2; exit 1; }
file=perf/engine-costs.txt
# What callgrind wrote; callgrind_annotate shows it by function.
profiles=target/engine-cost

skip() {
    echo "SKIP engine costs: $*"
    [[ $mode != --check ]] || echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
[[ $mode != --check || -e $file ]] || { echo "engine-cost.sh: there is no $file to compare with: --renew makes it" >&2; exit 1; }
command -v valgrind >/dev/null || skip 'valgrind is not installed (apt-get install valgrind)'
# All that decides on instructions beside the sources and Cargo.lock.
made="made with $(rustc -V), $(rustc -vV | sed -n 's/^host: //p'), $(getconf GNU_LIBC_VERSION), $(valgrind --version)"
if [[ $mode == --check ]] && ! grep -qxF "# $made" "$file"; then
    skip "$file was $(sed -n 's/^# \(made with .*\)/\1/p' "$file"), and here they would be $made: counts of the two do not compare." \
        'To go over to what is here, --renew on a commit whose costs are known to be good'
fi

cargo build -q --release -p ringway-perf --features engine-bench --bin engine-bench
bench=target/release/engine-bench
mkdir -p "$profiles"

# Instructions of one part of a scenario for each of its units. SCENARIO PART UNIT
count() {
    local profile=$profiles/$1-$2.out units
    units=$(timeout 300 valgrind -q --tool=callgrind --toggle-collect=engine_bench::meter::counted --callgrind-out-file="$profile" \
        "$bench" count "$1" "$2")
    # A function is named once, `fn=(12) name`, and then by its number. What a call costs stands in the line behind it. Of cryptography the
    # calls that lead into it from outside are taken off, with all they cost.
    awk -v what="$1 $2" -v unit="$3" -v units="$units" '
        function name(field, number) {
            sub(/^c?fn=/, "", field)
            number = field
            sub(/\).*/, ")", number)
            if (field != number) names[number] = substr(field, length(number) + 2)
            return names[number]
        }
        /^fn=/ { caller = name($0) }
        /^cfn=/ { callee = name($0) }
        /^calls=/ {
            getline
            if (callee ~ /^aws_lc_[0-9]/ && caller ~ /::/) foreign += $2
            if (callee ~ /^<?sha2::/ && caller !~ /^<?sha2::/) hashing += $2
        }
        /^totals:/ { total = $2 }
        END {
            printf "%s %.1f %s\n", what, (total - foreign - hashing) / units, unit
            if (hashing) printf "%s-hashing %.1f %s\n", what, hashing / units, unit
        }' "$profile"
}

counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
"$bench" list | while read -r scenario part unit; do
    count "$scenario" "$part" "$unit"
done >"$counts"

case $mode in
    '')
        awk '{ printf "%-11s %-15s %9.1f instructions for each %s\n", $1, $2, $3, $4 }' "$counts"
        "$bench" handshakes 2000
        ;;
    --renew)
        {
            echo '# Instructions of the protocol engine for each unit, which scripts/engine-cost.sh --check compares and --renew writes.'
            echo "# $made"
            cat "$counts"
        } >"$file"
        ;;
    --check)
        awk -v file="$file" '
            function fail(text) { print "FAIL " text; failed++ }
            /^#/ { next }
            FILENAME == file { budget[$1 " " $2] = $3; next }
            {
                what = $1 " " $2
                counted[what] = 1
                if (!(what in budget)) { fail(what ": not in " file); next }
                change = ($3 / budget[what] - 1) * 100
                text = sprintf("%s: %.1f instructions for each %s, %+.1f %%", what, $3, $4, change)
                if (change > 2) { fail(text " of the " budget[what] " in " file); next }
                print (change < -2 ? "ok, and should be renewed: " : "ok ") text
                passed++
            }
            END {
                for (what in budget) if (!(what in counted)) fail(what ": in " file ", but no such thing is counted")
                if (failed) {
                    print "callgrind_annotate target/engine-cost/SCENARIO-PART.out shows what takes them. If they are well spent:"
                    print "scripts/engine-cost.sh --renew, and commit " file " together with the change."
                }
                printf "%d passed, %d failed\n", passed, failed
                exit failed > 0
            }' "$file" "$counts"
        ;;
esac
