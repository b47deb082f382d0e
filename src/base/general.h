/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Included by the compiler's command line in front of every file that is compiled for general registers only (meson.build): the calls
 * that compilers make by themselves, for a structure that is copied or a loop that clears, would lead to the C library's
 * functions, which use vector registers, and those are the guest's at that time. The assembler gives them to general.c.
 */
#ifndef BASE_GENERAL_H
#define BASE_GENERAL_H

__asm__("memcpy = general_memcpy\n\t"
	"memmove = general_memmove\n\t"
	"memset = general_memset\n\t"
	"memcmp = general_memcmp\n\t"
	"bcmp = general_memcmp");

#endif
