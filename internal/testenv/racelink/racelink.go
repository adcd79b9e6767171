// Package racelink is imported for its effect: a test binary with the race detector is linked
// with a fifth less of a processor's time. The detector is written in C and lacks one function,
// which C compilers bring along. So the linker, having looked at all there is for what is
// missing, starts a C compiler to ask where that lies, and looks twice more. It need not where
// the function is in the binary. If the detector lacks another one some day, the linker finds it as before.
package racelink
