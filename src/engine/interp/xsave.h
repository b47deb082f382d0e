/* SPDX-License-Identifier: Apache-2.0 */
/* The FXSAVE and XSAVE formats, for the instructions and for whoever exchanges state in them. */
#ifndef ENGINE_INTERP_XSAVE_H
#define ENGINE_INTERP_XSAVE_H

#include "x86/state.h"

#define XSTATE_X87 BIT(0)
#define XSTATE_SSE BIT(1)
#define XSTATE_AVX BIT(2)
#define XSTATE_OPMASK BIT(5)
#define XSTATE_ZMM_UPPER BIT(6) /* bits 256 and up of ZMM0-15 */
#define XSTATE_ZMM_16 BIT(7)	/* ZMM16-31 */
#define XSAVE_LEGACY_SIZE 512u
#define XSAVE_HEADER_SIZE 64u

/* Which components are not in their initial configuration (XGETBV with ECX = 1). */
uint64_t xsave_in_use(const struct x86_state *s);

/* The x87 part of the 512-byte image; wide: 64-bit instruction and data pointers. */
void xsave_x87_pack(const struct x86_fpu *f, uint8_t *image, bool wide);
void xsave_x87_unpack(struct x86_fpu *f, const uint8_t *image, bool wide);
void xsave_x87_init(struct x86_fpu *f);

#endif
