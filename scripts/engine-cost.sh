#!/bin/bash
# Instructions of the protocol engine, by scenario and part, counted by callgrind: the same in every run, so that the cost of a change shows
# exactly. Two builds are counted: one with our release profile, which optimises all crates as one, and one with Cargo's, which optimises each by
# itself in 16 parts: that is what users get who set nothing.
# Without an option it prints both side by side, and the processor time of a handshake in memory.
# --check compares them with perf/engine-costs.txt. It fails where one has grown by more than 2 %, and where a scenario costs over 5 % more with
# Cargo's profile than with ours. --check-default does so with Cargo's profile alone, which compiles in a third of the time. --renew writes that
# file anew, in the same commit as the change that costs more, or less: its diff says how much. Cryptography is not counted: its instructions are other ones on other processors, and not ours. All but hashing, which derives keys, and
# of which the engine decides how much there is: it has lines of its own.
# Usage: engine-cost.sh [--check | --check-default | --renew]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
mode=${1:-}
[[ $# -le 1 && $mode =~ ^(--check|--check-default|--renew)?$ ]] ||
    { echo 'usage: engine-cost.sh [--check | --check-default | --renew]' >&2; exit 1; }
file=perf/engine-costs.txt
# What callgrind wrote, a folder for each profile; callgrind_annotate shows it by function.
profiles=target/engine-cost

skip() {
    echo "SKIP engine costs: $*"
    [[ $mode != --check* ]] || echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
[[ $mode != --check* || -e $file ]] || { echo "engine-cost.sh: there is no $file to compare with: --renew makes it" >&2; exit 1; }
command -v valgrind >/dev/null || skip 'valgrind is not installed (apt-get install valgrind)'
# All that decides on instructions beside the sources and Cargo.lock.
made="made with $(rustc -V), $(rustc -vV | sed -n 's/^host: //p'), $(getconf GNU_LIBC_VERSION), $(valgrind --version)"
if [[ $mode == --check* ]] && ! grep -qxF "# $made" "$file"; then
    skip "$file was $(sed -n 's/^# \(made with .*\)/\1/p' "$file"), and here they would be $made: counts of the two do not compare." \
        'To go over to what is here, --renew on a commit whose costs are known to be good'
fi

# Builds the benchmark and prints where it is.
build() {
    cargo build -q --release -p ringway-engine --features null-crypto --bench engine_costs --message-format json-render-diagnostics "$@" |
        sed -n 's/.*"name":"engine_costs".*"executable":"\([^"]*\)".*/\1/p'
}

# Instructions of one part of a scenario for each of its units. BENCH PROFILE SCENARIO PART UNIT
count() {
    local bench=$1 profile=$profiles/$2/$3-$4.out units
    # Cryptography that is not ours can be told by its name.
    units=$(RINGWAY_AES_GCM=aws_lc timeout 300 valgrind -q --tool=callgrind --toggle-collect=engine_costs::meter::counted --callgrind-out-file="$profile" \
        "$bench" count "$3" "$4")
    # A function is named once, `fn=(12) name`, and then by its number. What a call costs stands in the line behind it. Of cryptography the
    # calls that lead into it from outside are taken off, with all they cost.
    awk -v what="$3 $4" -v unit="$5" -v units="$units" '
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

# All of one build. BENCH PROFILE
count_all() {
    mkdir -p "$profiles/$2"
    "$1" list | while read -r scenario part unit; do
        count "$1" "$2" "$scenario" "$part" "$unit"
    done
}

[[ $mode == --check-default ]] || ours=$(build)
default=$(build --config 'profile.release.lto=false' --config 'profile.release.codegen-units=16')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Scenario, part, ours, default, unit.
if [[ $mode == --check-default ]]; then
    count_all "$default" default >"$work/default"
    # Our profile costs what it did.
    awk 'NR == FNR { ours[$1 " " $2] = $3; next } { was = ours[$1 " " $2]; print $1, $2, was ? was : $3, $3, $4 }' "$file" "$work/default" >"$work/counts"
else
    count_all "$ours" ours >"$work/ours" &
    count_all "$default" default >"$work/default"
    wait $!
    paste -d' ' "$work/ours" "$work/default" | awk '{ print $1, $2, $3, $7, $4 }' >"$work/counts"
fi

case $mode in
    '')
        awk '{ printf "%-11s %-15s %9.1f, with the default profile %9.1f (%+5.1f %%) instructions for each %s\n",
                      $1, $2, $3, $4, ($4 / $3 - 1) * 100, $5 }' "$work/counts"
        "$ours" handshakes 2000
        ;;
    --renew)
        {
            echo '# Instructions of the protocol engine for each unit: with our release profile, and with the default one of Cargo.'
            echo '# scripts/engine-cost.sh --check compares with them, --renew writes them.'
            echo "# $made"
            cat "$work/counts"
        } >"$file"
        ;;
    --check | --check-default)
        awk -v file="$file" -v both="$([[ $mode == --check-default ]] || echo 1)" '
            function fail(text) { print "FAIL " text; failed++ }
            function check(what, profile, count, budget, unit) {
                change = (count / budget - 1) * 100
                text = sprintf("%s, %s profile: %.1f instructions for each %s, %+.1f %%", what, profile, count, unit, change)
                if (change > 2) { fail(text " of the " budget " in " file); return }
                print (change < -2 ? "ok, and should be renewed: " : "ok ") text
                passed++
            }
            /^#/ { next }
            FILENAME == file { ours[$1 " " $2] = $3; default_[$1 " " $2] = $4; next }
            {
                what = $1 " " $2
                counted[what] = 1
                if (!scenarios[$1]++) order[++n] = $1
                sum_ours[$1] += $3
                sum_default[$1] += $4
                if (!(what in ours)) { fail(what ": not in " file); next }
                if (both) check(what, "our", $3, ours[what], $5)
                check(what, "default", $4, default_[what], $5)
            }
            END {
                for (what in ours) if (!(what in counted)) fail(what ": in " file ", but no such thing is counted")
                for (i = 1; i <= n; i++) {
                    over = (sum_default[order[i]] / sum_ours[order[i]] - 1) * 100
                    text = sprintf("%s: %+.1f %% with the default profile", order[i], over)
                    if (over > 5) fail(text ": what crosses crates or codegen units needs #[inline]")
                    else { print "ok " text; passed++ }
                }
                if (failed) {
                    print "callgrind_annotate target/engine-cost/PROFILE/SCENARIO-PART.out shows what takes them. If they are well spent:"
                    print "scripts/engine-cost.sh --renew, and commit " file " together with the change."
                }
                printf "%d passed, %d failed\n", passed, failed
                exit failed > 0
            }' "$file" "$work/counts"
        ;;
esac
