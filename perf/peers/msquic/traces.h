// Included first by every source of MsQuic: in a build without traces, what is only done for traces is left out. The header itself says in that
// build that they are wanted.
#if defined(QUIC_LOGS_STUB)
// What the sources that have tests define before they include the same.
#ifndef QUIC_TEST_APIS
#define QUIC_TEST_APIS 1
#endif
#include "quic_platform.h"
#include "quic_trace.h"
#undef QuicTraceEventEnabled
#undef QuicTraceLogInfoEnabled
#undef QuicTraceLogVerboseEnabled
#undef QuicTraceLogStreamVerboseEnabled
#define QuicTraceEventEnabled(Name) FALSE
#define QuicTraceLogInfoEnabled() FALSE
#define QuicTraceLogVerboseEnabled() FALSE
#define QuicTraceLogStreamVerboseEnabled() FALSE
#endif
