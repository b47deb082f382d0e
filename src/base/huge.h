/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zeroed memory for large tables that are looked into at random: in huge pages where the host has them, because a miss
 * of the processor's TLB costs more than the look-up, most of all in a nested machine.
 */
#ifndef BASE_HUGE_H
#define BASE_HUGE_H

#include <stddef.h>

void *huge_alloc(size_t size); /* aligned to 2 MiB; NULL: none */
void huge_free(void *p, size_t size); /* NULL is fine */
void huge_give_rest(void *p, size_t size); /* to the host: what lies behind the size in its last huge page, which becomes small ones */

#endif
