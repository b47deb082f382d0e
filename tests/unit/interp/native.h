/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one instruction on the host CPU with all registers given, and tells what it did. The
 * instruction is assembled into a page between code that loads and stores the state; faults come
 * back as signals. One at a time, one thread.
 */
#ifndef TEST_NATIVE_H
#define TEST_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct native_state {
	uint8_t xsave[1024] __attribute__((aligned(64))); /* standard format: x87, SSE, AVX */
	uint64_t gpr[16];				  /* RSP is ignored */
	uint64_t rflags;
};

/* How it ended, by the signal that came; <signal.h> itself does not go together with isa/insn.h. */
enum native_result {
	NATIVE_DONE,
	NATIVE_ILLEGAL,
	NATIVE_ARITHMETIC,
	NATIVE_MEMORY,
	NATIVE_ALIGNMENT
};

struct native; /* its memory: code, states */
struct native *native_create(void);
void native_destroy(struct native *n);

/* Where the instruction's first byte will be. */
uint64_t native_rip(const struct native *n);
/*
 * *out is filled if it was done. Else out->xsave has the first 512 bytes as they were at the fault,
 * with MXCSR and the x87 status word.
 */
enum native_result native_run(struct native *n, const uint8_t *insn, size_t len,
			      const struct native_state *in, struct native_state *out);

#endif
