// SPDX-License-Identifier: Apache-2.0
/*
 * A failing case made small: instructions become NOPs (so that all others stay where they are), then the
 * initial state becomes plain, as long as the difference remains.
 */
#include <string.h>
#include "diff.h"

bool bench_try(struct bench *b, const struct diff_case *c, struct difference *d)
{
	bool skip = false;

	for (unsigned k = 0; k < 2; k++) {
		b->result[k]->status = DIFF_NOT_RUN;
		b->engine[k]->run(b->data[k], c, b->result[k], 1, &skip);
		if (k == 0 && b->result[0]->status != DIFF_DONE)
			return false;
	}
	diff_compare(c, b->result[0], b->result[1], d);
	return d->differs;
}

static bool still(struct bench *b, struct diff_case *c)
{
	struct difference d;

	return undefined_compute(c) && bench_try(b, c, &d);
}

static bool drop_insn(struct bench *b, struct diff_case *c, unsigned k)
{
	struct diff_case t = *c;

	if (t.insn[k].skipped || t.insn[k].at >= t.code_len)
		return false;
	t.insn[k].skipped = true;
	for (unsigned i = 0; i < t.insn[k].len && t.insn[k].at + i < t.code_len; i++)
		t.code[t.insn[k].at + i] = 0x90;
	if (!still(b, &t))
		return false;
	*c = t;
	return true;
}

static void trim(struct bench *b, struct diff_case *c)
{
	struct diff_case t = *c;
	unsigned first = 0, last = c->ninsns;

	while (first < c->ninsns && c->insn[first].skipped)
		first++;
	while (last > 0 && c->insn[last - 1].skipped)
		last--;
	if (first >= last)
		return;
	t.in.rip = ARENA_CODE + t.code_at + t.insn[first].at;
	if (last < c->ninsns) {
		t.code_len = t.insn[last].at;
		t.ninsns = (uint16_t)last;
	}
	if (still(b, &t))
		*c = t;
}

static void simplify_state(struct bench *b, struct diff_case *c)
{
	struct diff_case t;

	for (unsigned i = 0; i < 16; i++) {
		t = *c;
		t.in.gpr[i] = i == 4 ? ARENA_STACK + PAGE : 0;
		if (t.in.gpr[i] != c->in.gpr[i] && still(b, &t))
			*c = t;
	}
	t = *c;
	t.in.rflags = 0x202;
	if (still(b, &t))
		*c = t;
	t = *c;
	memset(t.in.ymm, 0, sizeof(t.in.ymm));
	if (still(b, &t)) {
		*c = t;
	} else {
		for (unsigned i = 0; i < 16; i++) {
			t = *c;
			memset(t.in.ymm[i], 0, sizeof(t.in.ymm[i]));
			if (still(b, &t))
				*c = t;
		}
	}
	t = *c;
	t.in.fcw = 0x37f;
	t.in.fsw = 0;
	t.in.ftw = 0;
	memset(t.in.st, 0, sizeof(t.in.st));
	if (still(b, &t))
		*c = t;
	t = *c;
	t.in.mxcsr = 0x1f80;
	if (still(b, &t))
		*c = t;
}

void diff_minimise(struct bench *b, struct diff_case *c)
{
	struct difference d;
	bool changed;

	do {
		changed = false;
		for (int k = c->ninsns - 1; k >= 0; k--)
			changed |= drop_insn(b, c, (unsigned)k);
	} while (changed);
	trim(b, c);
	simplify_state(b, c);
	/* leave the results of the final form behind */
	undefined_compute(c);
	bench_try(b, c, &d);
}

uint16_t diff_culprit(const struct diff_case *c)
{
	for (int k = c->ninsns - 1; k >= 0; k--)
		if (!c->insn[k].skipped)
			return c->insn[k].mnemonic;
	return 0;
}
