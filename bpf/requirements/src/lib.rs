//! Empty: the build script of this package is what counts. It names what a build with AF_XDP or hwloc lacks on this machine, in one line for
//! apt, and fails then.
#![forbid(unsafe_code)]
