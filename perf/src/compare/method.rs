//! The end of the page: how it was measured, and where.

use maud::{Markup, html};

use super::runs::Comparison;

pub(super) fn method(comparison: &Comparison) -> Markup {
    html! {
        h2 id="method" { "Method" }
        ul {
            li {
                "All contenders of a scenario take turns, A B C A B C …, " (comparison.rounds) " rounds of " (comparison.seconds)
                " s, so that what the machine does meanwhile meets all of them. Each turn has a fresh server on a fresh port."
            }
            li {
                "Server on processor " (comparison.cpus[0]) ", client on processor " (comparison.cpus[1])
                ": all threads of each are held there, which is checked in the middle of every run."
            }
            li {
                "Every stack has the same command line, protocol (QUIC-PERF), content, certificate (P-256) and flow control windows, and sends "
                "UDP payloads of up to 1472 bytes. Congestion control and pacing are as each stack ships them; GSO and GRO are on where a stack "
                "has them."
            }
            li {
                "Figures are medians over the rounds, ratios are those of medians. Ringway's best mode is the contender with the best median; "
                "the other stacks are one contender each. Every run is in the figures beside this page."
            }
            li {
                "Goodput and requests per second are over the time in which data could flow: from the opening of the first stream to the last byte "
                "or response; the handshake before it is not part of it."
            }
            li {
                "Processor time is the kernel's account of the processes, taken from outside: of the server from before the client starts until "
                "it has ended; of the client its whole life, with start and end. What the kernel does for a process in an interrupt counts for "
                "whoever ran at that moment."
            }
            li {
                "The floor moves datagrams one way without a protocol, straight on the kernel's interface: raw, as they are; sealed, with payload "
                "copied from and to the application's memory, AES-128-GCM and header protection, which no QUIC stack can do without. The ratio "
                "to the floor is to the sealed one of the same datapath; that of io_uring and of all other stacks to the one of sockets."
            }
            li {
                "Nothing is configured about waiting in any stack, except where it says polling. As it comes, Ringway looks for work for up to "
                "25 µs before a thread sleeps, if its last sleeps were that short; the other stacks wait in their event loops. Where it says "
                "polling, Ringway's threads on both sides look for 1 ms, which costs processor time: that has rows of its own."
            }
            @if comparison.has_tasks() {
                li {
                    "Where it says tasks, both ends of Ringway are written with futures, as those of quinn and s2n-quic are, on a tokio runtime "
                    "of one thread, which drives the connections too unless it says otherwise: at the client a task for each stream at a time, "
                    "at the server one for each request that has to wait."
                }
            }
            li {
                "Memory of an idle connection is what resident memory has grown by with 2000 connections over that with 8, divided by the "
                "difference. Clients of all stacks set them up 16 at a time."
            }
            li {
                "AF_XDP: over veth the kernel copies, whatever the place of the XDP program. Datagrams are sent without a UDP checksum, as the "
                "kernel does not compute one for sockets on such a link either. In generic mode the receiver's processor does the receiver's "
                "work (RPS), which is turned off again for all others; that native mode leaves the offloads of the link as they were is checked."
            }
        }
        p {
            "Run it again: " code { "scripts/compare.sh" } "; make this page again from its figures: "
            code { "ringperf compare --from compare.json" } "."
        }
    }
}

pub(super) fn environment(comparison: &Comparison) -> Markup {
    let environment = &comparison.environment;
    html! {
        h2 id="environment" { "Environment" }
        dl {
            dt { "Processor" } dd { (environment.processor) ", " (environment.processors) " usable" }
            dt { "System" } dd { (environment.system) ", " (environment.kernel) }
            dt { "Compiler" } dd { (environment.rustc) }
            dt { "Date" } dd { (environment.date) }
            @for version in &environment.versions { dt { (version.stack.name()) } dd { (version.version) } }
            @for (calibration, when) in comparison.calibrations.iter().zip(["Before", "After"]) {
                dt { (when) } dd { (calibration) }
            }
            @if let Some(interference) = &comparison.interference { dt { "Meanwhile" } dd { (interference) } }
        }
    }
}
