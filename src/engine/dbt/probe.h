/* SPDX-License-Identifier: Apache-2.0 */
/* What the translator needs of the host; apart because <sys/auxv.h> and x86/state.h share names. */
#ifndef ENGINE_DBT_PROBE_H
#define ENGINE_DBT_PROBE_H

struct err;
int dbt_probe(struct err *e);

#endif
