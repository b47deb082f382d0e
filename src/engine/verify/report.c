/* SPDX-License-Identifier: Apache-2.0 */
/* What is said when the two engines differ: where, how, the way there, the code. */
#include <string.h>
#include "engine/verify/verify.h"
#include "state/fields.h"
#include "x86/state-desc.h"

#define PATH_SHOWN 12u

static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

typedef unsigned long long ull;

static void show_value(FILE *out, const uint8_t *p, unsigned size)
{
	while (size-- > 0)
		fprintf(out, "%02x", p[size]);
}

static void show_registers(FILE *out, const struct verify *v)
{
	const struct x86_state *a = &v->c->s, *b = &v->ref->s, *o = &v->before;

	fprintf(out, "%-8s %-18s %-18s %s\n", "", "before", "translator", "interpreter");
	for (unsigned n = 0; n < 16; n++)
		fprintf(out, "%-8s %#018llx %#018llx %#018llx%s\n", names[n], (ull)o->gpr[n], (ull)a->gpr[n],
			(ull)b->gpr[n], a->gpr[n] == b->gpr[n] ? "" : "  <--");
	fprintf(out, "%-8s %#018llx %#018llx %#018llx%s\n", "rip", (ull)o->rip, (ull)a->rip, (ull)b->rip,
		a->rip == b->rip ? "" : "  <--");
	fprintf(out, "%-8s %#018llx %#018llx %#018llx%s\n", "rflags", (ull)o->rflags, (ull)a->rflags, (ull)b->rflags,
		a->rflags == b->rflags ? "" : "  <--");
}

/* Everything else that differs, by the names it is saved under. */
static void show_others(FILE *out, const struct verify *v)
{
	const uint8_t *a = (const uint8_t *)&v->c->s, *b = (const uint8_t *)&v->ref->s;

	for (unsigned n = 0; n < x86_state_desc.nfields; n++) {
		const struct state_field *f = &x86_state_desc.fields[n];
		unsigned size = f->raw ? 8 : f->size, count = f->raw ? f->count / 8 : f->count;

		if (f->offset < offsetof(struct x86_state, seg))
			continue;
		for (unsigned k = 0; k < count; k++) {
			unsigned at = f->offset + k * size;

			if (!memcmp(a + at, b + at, size))
				continue;
			fprintf(out, "%s[%u]: translator ", f->name, k);
			show_value(out, a + at, size);
			fprintf(out, ", interpreter ");
			show_value(out, b + at, size);
			fputc('\n', out);
		}
	}
}

static void show_block(FILE *out, struct verify *v, const struct block *b, int mark)
{
	fprintf(out, "block at %#llx (page %#llx, mode %#x, %u instructions):\n", (ull)b->va, (ull)b->page, b->mode,
		b->ninsns);
	for (unsigned n = 0; n < b->ninsns; n++) {
		char text[128] = "?", bytes[2 * MAX_INSN + 1] = "";
		struct insn i;

		if (code_at(v, block_rip(b, n), &i)) {
			insn_format(&i, block_rip(b, n), text, sizeof(text));
			for (unsigned k = 0; k < i.len; k++)
				snprintf(bytes + 2 * k, 3, "%02x", i.bytes[k]);
		}
		fprintf(out, "%s %#llx  %-20s %s\n", (int)n == mark ? "=>" : "  ", (ull)block_rip(b, n), bytes, text);
	}
}

/* What an instruction became: the way it takes when all is well. */
static void show_translation(FILE *out, struct verify *v, const struct block *b, unsigned idx)
{
	const struct dbt *d = dbt_of(v->c);
	uint32_t at, end;

	if (idx >= b->ninsns)
		return;
	at = b->map[idx].host;
	end = b->map[idx + 1].host;
	fprintf(out, "the translation of the marked instruction:\n");
	while (at < end) {
		char text[128] = "?";
		struct insn i;

		if (insn_decode(&i, d->rx + at, MIN(end - at, MAX_INSN), MODE_64) != INSN_OK)
			break;
		insn_format(&i, (uintptr_t)d->rx + at, text, sizeof(text));
		fprintf(out, "     %s\n", text);
		at += i.len;
	}
}

static void show_path(FILE *out, struct verify *v)
{
	unsigned count = path_length(v), shown = MIN(v->at_place, PATH_SHOWN);

	fprintf(out, "the interpreter was at block %u of %u in this stretch; the way there:\n", v->at_place + 1, count);
	for (unsigned n = v->at_place - shown; n < v->at_place; n++)
		show_block(out, v, path_block(v, n), -1);
	show_block(out, v, v->at_block, (int)v->at_idx);
	show_translation(out, v, v->at_block, v->at_idx);
	for (unsigned n = v->at_place + 1; n < count && n < v->at_place + 3; n++) {
		fprintf(out, "the translator's next: ");
		show_block(out, v, path_block(v, n), -1);
	}
}

static const char *how_text(const struct verify *v)
{
	static const char *const text[] = {
		[WATCH_LEFT] = "left its last block", [WATCH_KICK] = "was interrupted", [WATCH_BEHIND] = "came back to C",
		[WATCH_STEP] = "left an instruction to the interpreter", [WATCH_BRANCH] = "branched to nowhere",
		[WATCH_FAULT] = "met an exception",
	};

	return v->stop_block ? "called the interpreter" : text[v->how];
}

void report(struct verify *v)
{
	FILE *out = stderr;

	fprintf(out, "\nospite: verify: %s\n", v->why);
	fprintf(out, "after %llu instructions in %llu stretches\n", (ull)v->counters.insns, (ull)v->counters.stretches);
	fprintf(out, "where the translator %s\n", how_text(v));
	show_registers(out, v);
	show_others(out, v);
	if (path_length(v))
		show_path(out, v);
	fflush(out);
}
