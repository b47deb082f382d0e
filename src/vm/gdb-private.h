/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the debugger stub: gdb.c the connection, gdb-command.c the commands, gdb-run.c running and stopping,
 * gdb-regs.c registers. Everything runs on the event loop but the debug hook. */
#ifndef VM_GDB_PRIVATE_H
#define VM_GDB_PRIVATE_H

#include "base/evloop.h"
#include "vm/gdb.h"

#define GDB_PACKET 4096u         /* payload in either direction, as announced */
#define GDB_OUT (4 * GDB_PACKET) /* waiting to be sent; a client that lets more gather is dropped */

#define GDB_SIGINT 2
#define GDB_SIGTRAP 5

/* A reply being put together. What does not fit sets `full`, and an error is sent in its place. */
struct gdb_text {
	char data[GDB_PACKET + 1];
	unsigned len;
	bool full;
};

struct gdb {
	struct device device; /* so that vm_destroy ends us */
	struct vm *vm;
	int port;
	int listen_fd, fd; /* -1: nobody connected */
	struct evsource *listen_source, *source;

	char in[GDB_PACKET + 8];
	unsigned in_len;
	bool in_packet; /* a '$' has been seen */
	char out[GDB_OUT];
	unsigned out_len;
	bool no_ack, swbreak, hwbreak, closing;

	bool running;     /* the client waits for a stop reply */
	unsigned general; /* CPU that registers and memory are of (Hg) */
	unsigned steer;   /* CPU for c and s (Hc) */
	char last_stop[160];
	/* set by the debug hook on the CPUs' threads */
	_Atomic uint64_t hit; /* CPUs that have stopped and not been reported */
	_Atomic bool ended;
	uint64_t hit_rip[MAX_CPUS];
	/* which of cpu->debug.breaks are Z1 */
	bool hard[DEBUG_POINTS];
};

/* gdb.c */
void text_add(struct gdb_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_hex(struct gdb_text *t, const void *data, size_t len);
bool hex_bytes(const char **p, void *data, size_t len); /* exactly len bytes */
bool hex_number(const char **p, uint64_t *v);           /* 1..16 digits */
void gdb_send(struct gdb *g, const char *payload, unsigned len);

/* gdb-command.c: one packet's payload, terminated by 0 */
void gdb_command(struct gdb *g, const char *p, unsigned len);

/* gdb-run.c */
void gdb_attach(struct gdb *g);               /* somebody has connected */
void gdb_detach(struct gdb *g);               /* and gone: all points out, machine on */
void gdb_interrupt(struct gdb *g);            /* Ctrl-C */
int gdb_point(struct gdb *g, bool insert, unsigned type, gva_t at, uint64_t len); /* -1 no room, 0, 1 not known */
void gdb_continue(struct gdb *g, uint64_t step, uint64_t run); /* bit masks of CPUs */
void gdb_hook(void *opaque, struct vcpu *v);
void gdb_stopped_hook(void *opaque);

/* gdb-regs.c */
void gdb_regs_read(const struct cpu *c, struct gdb_text *t);
bool gdb_regs_write(struct cpu *c, const char *p);
bool gdb_reg_read(const struct cpu *c, unsigned n, struct gdb_text *t);
bool gdb_reg_write(struct cpu *c, unsigned n, const char *p);
/* Bytes [at, at+len) of the target description; *total is its size. */
void gdb_target_xml(struct gdb_text *t, uint64_t at, uint64_t len, uint64_t *total);

#endif
