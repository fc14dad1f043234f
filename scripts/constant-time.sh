#!/bin/bash
# That the time of AES-GCM depends on lengths alone, in an optimised build, with the profile that users get who set nothing.
# The form of single blocks: memcheck, with keys and plaintext marked as undefined, as in the tests, where the build is another.
# The wider ones, whose instructions valgrind does not know: their code is disassembled. What keys, plaintext and hash are in vectors cannot decide
# on a branch or an address unless an instruction takes it out of the vectors, into a general register, flags or a mask. Such instructions are
# counted: sealing has none, opening those that take out the difference between two tags, as a whole. This does not see what goes through
# memory, which these functions read into general registers for lengths, pointers, and, at 256 bits, the last bytes of a message that make no
# vector: that code is the same as for single blocks. Nor does it look at the derivation of a key, which is of one source for all.
# Usage: constant-time.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
[[ $(uname -m) == x86_64 ]] || { echo "SKIP constant time: the wide forms are those of x86_64, and this is $(uname -m)"; echo '0 passed, 0 failed, 1 skipped'; exit 0; }
for tool in valgrind objdump; do
    command -v "$tool" >/dev/null || { echo "SKIP constant time: $tool is not installed (apt-get install valgrind binutils)"; echo '0 passed, 0 failed, 1 skipped'; exit 0; }
done
PROFILE=(--release --config profile.release.lto=false --config profile.release.codegen-units=16)

step 'memcheck of the form of single blocks'
cargo test -q "${PROFILE[@]}" -p ringway-engine --lib constant_time -- --nocapture

step 'disassembly of the wider forms'
# Names with all parameters, which tell what a function does.
library=$(cargo rustc -q "${PROFILE[@]}" -p ringway-engine --lib --message-format json-render-diagnostics -- -C symbol-mangling-version=v0 |
    sed -n 's/.*"name":"ringway_engine".*"filenames":\["\([^"]*\.rlib\)".*/\1/p')
objdump -d -C --no-show-raw-insn "$library" | awk '
    # AT&T: the last operand is where it goes.
    function leaves_vectors(name, operands) {
        if (name ~ /^vp?(gather|scatter)|^vp?(compress|expand)/) return 1
        if (name ~ /^(vptest|vtestp|v?u?comis)/ && operands !~ /%k/) return 1
        return operands ~ /%[xyz]mm/ && operands ~ /,%([re][a-z0-9]+|k[0-7])$/
    }
    function finish() {
        if (form == "") return
        functions[form " " does]++
        # The halves of a difference between tags are taken out, or it is compared where it is.
        good = does == "seal" ? left == 0 : left == 1 || left == 2
        if (good) passed++; else failed++
        printf "%s %s, %s: %d instructions, %d on vectors; %d take something out of these\n", good ? "ok" : "FAIL", form, does, instructions, vectors, left
        if (!good) print list
    }
    />:$/ {
        finish()
        form = ""
        if ($0 !~ /::enter::inside/) next
        if ($0 ~ /Avx512/) wide = "avx512"; else if ($0 ~ /Vaes256/) wide = "vaes256"; else next
        if ($0 ~ /pass::Seal/) does = "seal"; else if ($0 ~ /pass::Open/) does = "open"; else next
        form = wide
        left = instructions = vectors = 0
        list = ""
        next
    }
    form != "" && /^ +[0-9a-f]+:/ {
        instructions++
        operands = $0
        sub(/^[^:]*:[ \t]+[^ ]+ */, "", operands)
        if (operands ~ /%[xyz]mm/) vectors++
        if (leaves_vectors($2, operands)) { left++; list = list $0 "\n" }
    }
    END {
        finish()
        for (i = 1; i <= 4; i++) {
            what = i % 2 ? "seal" : "open"; wide = i > 2 ? "vaes256" : "avx512"
            # With keys of both lengths.
            if (functions[wide " " what] < 2) { failed++; print "FAIL " wide ", " what ": " functions[wide " " what] + 0 " of 2 functions found" }
        }
        printf "%d passed, %d failed\n", passed, failed
        exit failed > 0
    }'
