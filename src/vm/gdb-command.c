/* SPDX-License-Identifier: Apache-2.0 */
/* The debugger's commands. Every one is answered exactly once; what is not known, with an empty packet. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "vm/gdb-private.h"
#include "x86/access.h"

#define MEMORY_MAX ((GDB_PACKET - 16) / 2) /* bytes, as hex in one packet */

static void reply(struct gdb *g, const char *text)
{
	gdb_send(g, text, (unsigned)strlen(text));
}

static void reply_text(struct gdb *g, const struct gdb_text *t)
{
	if (t->full)
		reply(g, "E16");
	else
		gdb_send(g, t->data, t->len);
}

static struct vcpu *current(struct gdb *g)
{
	return &g->vm->vcpus[g->general];
}

/* A thread number as the protocol has it: hexadecimal, -1 all, 0 any. False when there is none like it. */
static bool thread_parse(struct gdb *g, const char **p, bool *all, unsigned *cpu)
{
	uint64_t n;

	*all = false;
	if (!strncmp(*p, "-1", 2)) {
		*p += 2;
		*all = true;
		return true;
	}
	if (!hex_number(p, &n) || n > g->vm->machine.ncpus)
		return false;
	if (n)
		*cpu = (unsigned)n - 1;
	return true;
}

/* ---- memory */

/*
 * One page's worth at guest-virtual `at`, RAM and ROM only: looking must not have the effects that reading a
 * device's registers has.
 */
static uint8_t *memory_piece(struct gdb *g, gva_t at, uint64_t *len, gpa_t *physical)
{
	struct cpu *c = &current(g)->cpu;
	const struct mem_range *r;

	*len = MIN(*len, GUEST_PAGE - (at & (GUEST_PAGE - 1)));
	if (!cpu_translate_debug(c, at, physical))
		return NULL;
	r = mem_find(c->mem, *physical);
	if (!r || r->kind == MEM_IO)
		return NULL;
	return r->host + (*physical - r->start);
}

static void command_read(struct gdb *g, const char *p)
{
	struct gdb_text t = { 0 };
	uint64_t at, len, n;
	const uint8_t *host;
	gpa_t physical;

	if (!hex_number(&p, &at) || *p++ != ',' || !hex_number(&p, &len) || *p || len > MEMORY_MAX) {
		reply(g, "E16");
		return;
	}
	for (; len; len -= n, at += n) {
		n = len;
		host = memory_piece(g, at, &n, &physical);
		if (!host)
			break;
		text_hex(&t, host, n);
	}
	if (len && !t.len)
		reply(g, "E0e");
	else
		reply_text(g, &t); /* what there was */
}

static void command_write(struct gdb *g, const char *p)
{
	uint8_t data[MEMORY_MAX];
	uint64_t at, len, n, done;
	gpa_t physical;

	if (!hex_number(&p, &at) || *p++ != ',' || !hex_number(&p, &len) || *p++ != ':' || len > MEMORY_MAX ||
	    !hex_bytes(&p, data, len) || *p) {
		reply(g, "E16");
		return;
	}
	for (done = 0; done < len; done += n) {
		n = len - done;
		if (!memory_piece(g, at + done, &n, &physical) ||
		    mem_load(g->vm->machine.mem, physical, data + done, n)) {
			reply(g, "E0e");
			return;
		}
	}
	reply(g, "OK");
}

/* ---- registers */

static void command_registers(struct gdb *g, const char *p)
{
	struct gdb_text t = { 0 };
	uint64_t n;
	bool ok = false;

	switch (*p++) {
	case 'g':
		if (*p)
			break;
		gdb_regs_read(&current(g)->cpu, &t);
		reply_text(g, &t);
		return;
	case 'p':
		if (hex_number(&p, &n) && !*p && n < 1000 && gdb_reg_read(&current(g)->cpu, (unsigned)n, &t))
			reply_text(g, &t);
		else
			reply(g, "E16");
		return;
	case 'P':
		ok = hex_number(&p, &n) && *p++ == '=' && n < 1000 &&
		     gdb_reg_write(&current(g)->cpu, (unsigned)n, p);
		break;
	case 'G':
		ok = gdb_regs_write(&current(g)->cpu, p);
		break;
	}
	current(g)->state_changed = true;
	reply(g, ok ? "OK" : "E16");
}

/* ---- running */

static uint64_t all_cpus(const struct gdb *g)
{
	return bits(~0ull, g->vm->machine.ncpus - 1, 0);
}

/* c, s [ADDR]; C, S SIG[;ADDR] */
static void command_go(struct gdb *g, const char *p)
{
	char what = *p++;
	struct cpu *c = &g->vm->vcpus[g->steer].cpu;
	uint64_t n, at;

	if (what == 'C' || what == 'S') {
		if (!hex_number(&p, &n) || (*p && *p++ != ';')) {
			reply(g, "E16");
			return;
		}
	}
	if (*p) {
		if (!hex_number(&p, &at) || *p || (uint64_t)((int64_t)(at << 16) >> 16) != at) {
			reply(g, "E16");
			return;
		}
		c->s.rip = at;
		g->vm->vcpus[g->steer].state_changed = true;
	}
	if (what == 's' || what == 'S')
		gdb_continue(g, BIT(g->steer), 0);
	else
		gdb_continue(g, 0, all_cpus(g));
}

/* vCont;ACTION[:THREAD]...: the first that names a thread counts for it; one without thread is for all others. */
static void command_vcont(struct gdb *g, const char *p)
{
	uint64_t step = 0, run = 0, left = all_cpus(g), mask, n;
	char what;
	bool all;
	unsigned cpu;

	while (*p == ';') {
		what = *++p;
		if (*p)
			p++;
		if ((what == 'C' || what == 'S') && !hex_number(&p, &n))
			break;
		mask = left;
		if (*p == ':') {
			p++;
			cpu = g->steer;
			if (!thread_parse(g, &p, &all, &cpu))
				break;
			if (!all)
				mask = left & BIT(cpu);
		}
		if (what == 's' || what == 'S')
			step |= mask;
		else if (what == 'c' || what == 'C')
			run |= mask;
		else
			break;
		left &= ~mask;
	}
	if (*p || !(step | run))
		reply(g, "E16");
	else
		gdb_continue(g, step, run);
}

static void command_point(struct gdb *g, const char *p)
{
	bool insert = *p++ == 'Z';
	uint64_t at, len;
	unsigned type = (unsigned)(*p - '0');
	int r;

	if (type > 9 || p[1] != ',') {
		reply(g, "E16");
		return;
	}
	p += 2;
	if (!hex_number(&p, &at) || *p++ != ',' || !hex_number(&p, &len) || (*p && *p != ';')) {
		reply(g, "E16");
		return;
	}
	r = gdb_point(g, insert, type, at, len);
	reply(g, r < 0 ? "E1c" : r ? "" : "OK");
}

static void command_thread(struct gdb *g, const char *p)
{
	char what = *p++;
	unsigned cpu = what == 'g' ? g->general : g->steer;
	bool all;

	if ((what != 'g' && what != 'c') || !thread_parse(g, &p, &all, &cpu) || *p) {
		reply(g, "E16");
		return;
	}
	if (what == 'g')
		g->general = cpu;
	else
		g->steer = cpu;
	reply(g, "OK");
}

/* ---- queries */

static void query_features(struct gdb *g, const char *p)
{
	static const char name[] = "target.xml:";
	struct gdb_text t = { 0 }, part = { 0 };
	uint64_t at, len, total, i;

	if (strncmp(p, name, sizeof(name) - 1)) {
		reply(g, "E00");
		return;
	}
	p += sizeof(name) - 1;
	if (!hex_number(&p, &at) || *p++ != ',' || !hex_number(&p, &len) || *p) {
		reply(g, "E16");
		return;
	}
	len = MIN(len, GDB_PACKET / 2 - 1); /* each byte may need an escape */
	gdb_target_xml(&part, at, len, &total);
	text_add(&t, "%c", at < total && total - at > len ? 'm' : 'l');
	for (i = 0; i < part.len; i++) {
		char c = part.data[i];

		if (c == '#' || c == '$' || c == '}' || c == '*')
			text_add(&t, "}%c", c ^ 0x20);
		else
			text_add(&t, "%c", c);
	}
	reply_text(g, &t);
}

static void query_threads(struct gdb *g)
{
	struct gdb_text t = { 0 };
	unsigned i;

	for (i = 0; i < g->vm->machine.ncpus; i++)
		text_add(&t, "%c%x", i ? ',' : 'm', i + 1);
	reply_text(g, &t);
}

static void query_thread_info(struct gdb *g, const char *p)
{
	static const char *const activities[] = { "running", "halted", "waiting for SIPI", "shut down" };
	struct gdb_text t = { 0 };
	const struct x86_state *s;
	unsigned cpu = 0;
	char text[80];
	bool all;

	if (!thread_parse(g, &p, &all, &cpu) || *p) {
		reply(g, "E16");
		return;
	}
	s = &g->vm->vcpus[cpu].cpu.s;
	snprintf(text, sizeof(text), "CPU %u, ring %u, %s", cpu, s->cpl, activities[s->activity & 3]);
	text_hex(&t, text, strlen(text));
	reply_text(g, &t);
}

/* "monitor" commands come as hex. */
static void query_monitor(struct gdb *g, const char *p)
{
	static const char help[] = "reset: start the machine again\n";
	struct gdb_text t = { 0 };
	char text[64] = "";
	size_t n = strlen(p) / 2;

	if (n >= sizeof(text) || !hex_bytes(&p, text, n) || *p) {
		reply(g, "E16");
		return;
	}
	if (!strcmp(text, "reset")) {
		vm_request_reset(g->vm);
		reply(g, "OK");
		return;
	}
	text_hex(&t, help, sizeof(help) - 1);
	reply_text(g, &t);
}

static bool starts(const char **p, const char *with)
{
	size_t n = strlen(with);

	if (strncmp(*p, with, n))
		return false;
	*p += n;
	return true;
}

static void command_query(struct gdb *g, const char *p)
{
	char text[160];

	if (starts(&p, "qSupported")) {
		g->swbreak = strstr(p, "swbreak+") != NULL;
		g->hwbreak = strstr(p, "hwbreak+") != NULL;
		snprintf(text, sizeof(text),
			 "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+",
			 GDB_PACKET);
		reply(g, text);
	} else if (starts(&p, "qXfer:features:read:")) {
		query_features(g, p);
	} else if (starts(&p, "qfThreadInfo")) {
		query_threads(g);
	} else if (starts(&p, "qsThreadInfo")) {
		reply(g, "l");
	} else if (starts(&p, "qThreadExtraInfo,")) {
		query_thread_info(g, p);
	} else if (starts(&p, "qRcmd,")) {
		query_monitor(g, p);
	} else if (starts(&p, "qAttached")) {
		reply(g, "1");
	} else if (starts(&p, "qSymbol::")) {
		reply(g, "OK");
	} else if (!strcmp(p, "qC")) {
		snprintf(text, sizeof(text), "QC%x", g->general + 1);
		reply(g, text);
	} else if (starts(&p, "QStartNoAckMode")) {
		reply(g, "OK");
		g->no_ack = true;
	} else {
		reply(g, "");
	}
}

static void command_v(struct gdb *g, const char *p)
{
	if (!strcmp(p, "vCont?")) {
		reply(g, "vCont;c;C;s;S");
	} else if (starts(&p, "vCont")) {
		command_vcont(g, p);
	} else if (starts(&p, "vKill")) {
		reply(g, "OK");
		vm_request_end(g->vm, VM_END_USER, 0, "killed by the debugger");
	} else {
		reply(g, "");
	}
}

void gdb_command(struct gdb *g, const char *p, unsigned len)
{
	unsigned cpu = 0;
	bool all;

	switch (*p) {
	case '?':
		reply(g, g->last_stop);
		return;
	case 'g':
	case 'G':
	case 'p':
	case 'P':
		command_registers(g, p);
		return;
	case 'm':
		command_read(g, p + 1);
		return;
	case 'M':
		command_write(g, p + 1);
		return;
	case 'c':
	case 'C':
	case 's':
	case 'S':
		command_go(g, p);
		return;
	case 'Z':
	case 'z':
		command_point(g, p);
		return;
	case 'H':
		command_thread(g, p + 1);
		return;
	case 'T':
		p++;
		reply(g, thread_parse(g, &p, &all, &cpu) && !all && !*p ? "OK" : "E16");
		return;
	case 'q':
	case 'Q':
		command_query(g, p);
		return;
	case 'v':
		command_v(g, p);
		return;
	case 'D':
		reply(g, "OK");
		g->closing = true; /* detaches */
		return;
	case 'k':
		vm_request_end(g->vm, VM_END_USER, 0, "killed by the debugger");
		g->closing = true;
		return;
	default:
		reply(g, "");
		return;
	}
}
