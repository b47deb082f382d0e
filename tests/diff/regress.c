// SPDX-License-Identifier: Apache-2.0
/*
 * Cases as text, one `name value` a line; what follows a ';' is for people. Bytes of an instruction that was
 * minimised away are NOPs in a `skip` line, so that all others keep their addresses.
 */
#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "diff.h"

void case_write(FILE *f, const struct diff_case *c, const char *why)
{
	const struct diff_regs *in = &c->in;
	char text[128];

	fprintf(f, "; %s\nmode %d\nat %x\nimage %u\n", why, c->mode == DIFF_64 ? 64 : 32, c->code_at, c->image);
	if (c->writable)
		fputs("writable 1\n", f);
	if (c->approx)
		fputs("approx 1\n", f);
	for (unsigned k = 0; k < c->nignore; k++)
		fprintf(f, "ignore %x %x\n", c->ignore[k].at, c->ignore[k].len);
	for (unsigned k = 0; k < c->ninsns; k++) {
		unsigned at = c->insn[k].at;

		if (at >= c->code_len)
			break;
		fputs(c->insn[k].skipped ? "skip " : "insn ", f);
		for (unsigned b = 0; b < c->insn[k].len && at + b < c->code_len; b++)
			fprintf(f, "%02x", c->code[at + b]);
		disassemble(c, at, text, sizeof(text));
		fprintf(f, " ; %s\n", c->insn[k].skipped ? "" : text);
	}
	fprintf(f, "rip %" PRIx64 "\nflags %" PRIx64 "\n", in->rip, in->rflags);
	for (unsigned i = 0; i < 16; i++)
		if (in->gpr[i])
			fprintf(f, "gpr %u %" PRIx64 "\n", i, in->gpr[i]);
	fprintf(f, "bases %" PRIx64 " %" PRIx64 "\n", in->fs_base, in->gs_base);
	fprintf(f, "fpu %x %x %x\nmxcsr %x\n", in->fcw, in->fsw, in->ftw, in->mxcsr);
	for (unsigned i = 0; i < 8; i++)
		if (in->st[i].mantissa || in->st[i].exponent)
			fprintf(f, "st %u %" PRIx64 " %x\n", i, in->st[i].mantissa, in->st[i].exponent);
	for (unsigned i = 0; i < 16; i++)
		if (in->ymm[i][0] || in->ymm[i][1] || in->ymm[i][2] || in->ymm[i][3])
			fprintf(f, "ymm %u %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 "\n", i, in->ymm[i][0],
				in->ymm[i][1], in->ymm[i][2], in->ymm[i][3]);
}

static bool read_insn(struct diff_case *c, const char *hex, bool skipped)
{
	unsigned n = 0;

	if (c->ninsns == MAX_INSNS)
		return false;
	for (; hex[2 * n] && hex[2 * n + 1]; n++) {
		char pair[3] = { hex[2 * n], hex[2 * n + 1], 0 }, *end;

		if (c->code_len + n >= CODE_MAX)
			return false;
		c->code[c->code_len + n] = (uint8_t)strtoul(pair, &end, 16);
		if (*end)
			return false;
	}
	c->insn[c->ninsns++] = (struct diff_insn){ .at = c->code_len, .len = (uint16_t)n, .skipped = skipped };
	c->code_len = (uint16_t)(c->code_len + n);
	return n > 0;
}

static bool read_line(struct diff_case *c, const char *line)
{
	struct diff_regs *in = &c->in;
	uint64_t v[5] = { 0 };
	char name[16], word[64] = "";
	int n = sscanf(line, "%15s %63s", name, word);
	int values = sscanf(line, "%*s %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64, &v[0], &v[1],
			    &v[2], &v[3], &v[4]);

	if (n < 1)
		return true;
	if (!strcmp(name, "insn") || !strcmp(name, "skip"))
		return read_insn(c, word, name[0] == 's');
	if (!strcmp(name, "mode") && (v[0] == 0x64 || v[0] == 0x32))
		c->mode = v[0] == 0x64 ? DIFF_64 : DIFF_32;
	else if (!strcmp(name, "at") && v[0] < CODE_PAGES * PAGE)
		c->code_at = (uint16_t)v[0];
	else if (!strcmp(name, "image") && sscanf(line, "%*s %" SCNu64, &v[0]) == 1 && v[0] < IMAGES)
		c->image = (uint8_t)v[0];
	else if (!strcmp(name, "writable"))
		c->writable = v[0] != 0;
	else if (!strcmp(name, "approx"))
		c->approx = v[0] != 0;
	else if (!strcmp(name, "ignore") && c->nignore < MAX_IGNORE)
		c->ignore[c->nignore].at = (uint32_t)v[0], c->ignore[c->nignore++].len = (uint32_t)v[1];
	else if (!strcmp(name, "rip"))
		in->rip = v[0];
	else if (!strcmp(name, "flags"))
		in->rflags = v[0];
	else if (!strcmp(name, "gpr") && sscanf(line, "%*s %" SCNu64, &v[0]) == 1 && v[0] < 16)
		in->gpr[v[0]] = v[1];
	else if (!strcmp(name, "bases"))
		in->fs_base = v[0], in->gs_base = v[1];
	else if (!strcmp(name, "fpu"))
		in->fcw = (uint16_t)v[0], in->fsw = (uint16_t)v[1], in->ftw = (uint8_t)v[2];
	else if (!strcmp(name, "mxcsr"))
		in->mxcsr = (uint32_t)v[0] & 0xffff;
	else if (!strcmp(name, "st") && v[0] < 8)
		in->st[v[0]].mantissa = v[1], in->st[v[0]].exponent = (uint16_t)v[2];
	else if (!strcmp(name, "ymm") && sscanf(line, "%*s %" SCNu64, &v[0]) == 1 && v[0] < 16)
		memcpy(in->ymm[v[0]], v + 1, 32);
	else
		return false;
	return values > 0;
}

bool case_read(FILE *f, struct diff_case *c, char *error, size_t size)
{
	char line[300], *comment;
	unsigned number = 0;
	ZydisDecoder decoder;
	ZydisDecodedInstruction i;

	memset(c, 0, sizeof(*c));
	c->in.rflags = 0x202;
	c->in.fcw = 0x37f;
	c->in.mxcsr = 0x1f80;
	while (fgets(line, sizeof(line), f)) {
		number++;
		comment = strchr(line, ';');
		if (comment)
			*comment = 0;
		if (!read_line(c, line)) {
			snprintf(error, size, "line %u is not understood", number);
			return false;
		}
	}
	c->in.sel[0] = c->in.sel[2] = c->in.sel[3] = 0x2b;
	c->in.sel[1] = c->mode == DIFF_64 ? 0x33 : 0x23;
	ZydisDecoderInit(&decoder,
			 c->mode == DIFF_64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 c->mode == DIFF_64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	for (unsigned k = 0; k < c->ninsns; k++)
		if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, c->code + c->insn[k].at,
							       c->insn[k].len, &i)))
			c->insn[k].mnemonic = (uint16_t)i.mnemonic;
	undefined_compute(c);
	if (!c->ninsns)
		snprintf(error, size, "no instruction in it");
	return c->ninsns > 0;
}
