//go:build race && linux

#include "textflag.h"

// int __popcountdi2(long): how many bits are set.
TEXT __popcountdi2(SB), NOSPLIT|NOFRAME, $0
	POPCNTQ DI, AX
	RET
