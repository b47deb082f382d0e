/* SPDX-License-Identifier: Apache-2.0 */
/* The saved form of struct x86_state. */
#ifndef X86_STATE_DESC_H
#define X86_STATE_DESC_H

#include "state/fields.h"
#include "x86/state.h"

extern const struct state_desc x86_state_desc;

#endif
