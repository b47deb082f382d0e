/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM engine on tiny guests: ports, MMIO, halts, kicks, long mode, and the state going out and in again.
 * Skipped (77) where /dev/kvm is missing. Guest code is hand-assembled; the bytes are beside the mnemonics.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/err.h"
#include "base/kick.h"
#include "engine/engine.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/kvm.h"
#include "x86/cpuid.h"

#define CODE 0x1000
#define RAM (64u << 20)

struct fixture {
	struct machine m;
	struct cpu *c;
	struct cpuid_model cpuid;
	uint32_t last_out;
	uint64_t last_mmio;
	uint64_t expected, left_at_out; /* of the device that takes writes late */
	int bell[2]; /* of the device that has doorbells: at 0x10 for any value, at 0x20 for the value 7 alone */
	unsigned rung;
	struct kick_thread kick;
};

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	return 0;
}
static void set_cr8(void *ctx, uint64_t v)
{
}
static int read_msr(void *ctx, uint32_t index, uint64_t *value)
{
	if (index != 0x1b)
		return -1;
	*value = 0xfee00900;
	return 0;
}
static int write_msr(void *ctx, uint32_t index, uint64_t value)
{
	return -1;
}
static const struct cpu_bus bus = { no_irq, no_irq, no_cr8, set_cr8, read_msr, write_msr };

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x5a;
}
static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct fixture *)opaque)->last_out = (uint32_t)value;
	((struct fixture *)opaque)->left_at_out = ((struct fixture *)opaque)->expected;
}
static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct fixture *)opaque)->last_mmio = value + offset;
}
static void late_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fixture *f = opaque;

	assert_int_equal(value, f->expected);
	f->expected--;
}
static const struct io_ops late_ops = { port_read, late_write, 1, 8, .late_writes = true };
static const struct io_ops port_ops = { port_read, port_write, 1, 4 }, mmio_ops = { port_read, mmio_write, 1, 8 };

static void bell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct fixture *)opaque)->rung++;
}
static unsigned bells(void *opaque, struct io_doorbell *out, unsigned max)
{
	struct fixture *f = opaque;

	assert_true(max >= 2);
	out[0] = (struct io_doorbell){ .offset = 0x10, .fd = f->bell[0] };
	out[1] = (struct io_doorbell){ .offset = 0x20, .fd = f->bell[1], .size = 4, .value = 7 };
	return 2;
}
static const struct io_ops bell_ops = { port_read, bell_write, 1, 8, .doorbells = bells };

/* Each test starts with the options in *state, the usual ones without. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct engine_options *options = *state;
	struct err e = { 0 };

	f->m.mem = mem_create(RAM, &e);
	assert_non_null(f->m.mem);
	assert_int_equal(mem_map_ram(f->m.mem, 0, 0, RAM, "ram", &e), 0);
	assert_int_equal(mem_map_io(f->m.mem, 0x10000000, 0x1000, &mmio_ops, f, "mmio", &e), 0);
	f->m.ports = ports_create();
	assert_int_equal(ports_map(f->m.ports, 0x80, 4, &port_ops, f, "port", &e), 0);
	f->m.clock = clock_create_manual();
	f->m.cpuid = &f->cpuid;
	f->m.engine = &engine_kvm;
	if (options) {
		f->m.engine_options = *options;
		f->m.accelerated = options->dirty_ring == ENGINE_ON; /* refused otherwise */
	}
	f->m.ncpus = 1;
	assert_int_equal(cpuid_build(&f->cpuid, "host", 1, clock_tsc_khz(f->m.clock), &e), 0);
	f->c = aligned_alloc(64, (sizeof(struct cpu) + 63) & ~63ul);
	memset(f->c, 0, sizeof(*f->c));
	f->c->machine = f->m.cpus[0] ? NULL : &f->m;
	f->m.cpus[0] = f->c;
	f->c->mem = f->m.mem;
	f->c->bus = &bus;
	f->c->ctx = f;
	f->c->thread = &f->kick;
	assert_int_equal(kick_attach(&f->kick, &e), 0);
	assert_int_equal(tlb_init(&f->c->tlb, &e), 0);
	x86_state_reset(&f->c->s, true);
	if (engine_kvm.vm_attach(&f->m, &e) || engine_kvm.cpu_create(f->c, &e)) {
		print_message("cannot attach: %s\n", e.text);
		return -1;
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	engine_kvm.cpu_destroy(f->c);
	engine_kvm.vm_detach(&f->m);
	tlb_dispose(&f->c->tlb);
	kick_detach(&f->kick);
	clock_destroy(f->m.clock);
	ports_destroy(f->m.ports);
	mem_destroy(f->m.mem);
	free(f->c);
	free(f);
	return 0;
}

static void real_mode_at(struct fixture *f, const void *code, size_t len)
{
	assert_int_equal(mem_load(f->m.mem, CODE, code, len), 0);
	f->c->s.seg[SEG_CS].selector = 0;
	f->c->s.seg[SEG_CS].base = 0;
	f->c->s.rip = CODE;
	engine_kvm.state_set(f->c);
}

static void ports_and_halt(void **state)
{
	struct fixture *f = *state;
	static const uint8_t code[] = {
		0xe4, 0x80,	  /* in al, 0x80 */
		0x04, 0x01,	  /* add al, 1 */
		0xe6, 0x81,	  /* out 0x81, al */
		0xf4,		  /* hlt */
	};

	real_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	assert_int_equal(f->last_out, 0x5b);
	engine_kvm.state_get(f->c);
	assert_int_equal(f->c->s.gpr[RAX] & 0xff, 0x5b);
	assert_int_equal(f->c->s.rip, CODE + sizeof(code));
	assert_int_equal(f->c->s.activity, ACTIVITY_HLT);
}

/*
 * All of the state goes in, and comes out again. The guest's only instruction is a halt: the software KVM of some hosts
 * knows no vector instructions.
 */
static void state_goes_in_and_out(void **state)
{
	struct fixture *f = *state;
	static const uint8_t code[] = { 0xf4 };
	struct x86_state *s = &f->c->s;

	real_mode_at(f, code, sizeof(code));
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned n = 0; n < 16; n++)
			s->v[n].d[n & 3] = 0x1234 + n + i;
		s->gpr[R8] = 0x1122334455667788 + i;
		s->fpu.sw = 3 << 11;
		s->fpu.tag = 0x18;
		s->fpu.reg[3].mantissa = 0x8000000000000000 | i;
		s->fpu.reg[3].exponent = 0x3fff;
		s->lstar = 0xffffffff80000000 + i;
		s->dr[1] = 0x1000 + i;
		s->seg[SEG_FS].base = 0x12340;
		s->seg[SEG_FS].selector = 0x1234;
		s->activity = ACTIVITY_RUN;
		s->rip = CODE;
		engine_kvm.state_set(f->c);
		assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
		engine_kvm.state_get(f->c);
		for (unsigned n = 0; n < 16; n++)
			assert_int_equal(s->v[n].d[n & 3], 0x1234 + n + i);
		assert_true(s->gpr[R8] == 0x1122334455667788 + i);
		assert_int_equal(s->fpu.sw >> 11 & 7, 3);
		assert_int_equal(s->fpu.tag, 0x18);
		assert_true(s->fpu.reg[3].mantissa == (0x8000000000000000 | i));
		assert_int_equal(s->fpu.reg[3].exponent, 0x3fff);
		assert_true(s->lstar == 0xffffffff80000000 + i);
		assert_int_equal(s->dr[1], 0x1000 + i);
		assert_int_equal(s->seg[SEG_FS].base, 0x12340);
		assert_int_equal(s->seg[SEG_FS].selector, 0x1234);
	}
}

static void long_mode_at(struct fixture *f, const void *code, size_t len)
{
	struct x86_state *s = &f->c->s;
	uint64_t pml4 = 0x11003, pdpt = 0x12003, pd[512];

	for (unsigned i = 0; i < 512; i++)
		pd[i] = (uint64_t)i << 21 | 0x83;
	assert_int_equal(mem_load(f->m.mem, 0x10000, &pml4, 8), 0);
	assert_int_equal(mem_load(f->m.mem, 0x11000, &pdpt, 8), 0);
	assert_int_equal(mem_load(f->m.mem, 0x12000, pd, sizeof(pd)), 0);
	assert_int_equal(mem_load(f->m.mem, CODE, code, len), 0);
	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
	s->cr3 = 0x10000;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->seg[SEG_CS] = (struct x86_segment){ .selector = 8, .limit = ~0u, .attr = 0xa09b };
	for (unsigned i = 0; i < 6; i++)
		if (i != SEG_CS)
			s->seg[i] = (struct x86_segment){ .selector = 16, .limit = ~0u, .attr = 0xc093 };
	s->seg[SEG_TR] = (struct x86_segment){ .selector = 24, .limit = 0x67, .attr = 0x8b };
	s->rip = CODE;
	engine_kvm.state_set(f->c);
}

static void long_mode_and_mmio(void **state)
{
	struct fixture *f = *state;
	struct x86_state *s = &f->c->s;
	static const uint8_t code[] = {
		0x48, 0xb8, 0x10, 0, 0, 0x10, 0, 0, 0, 0,	   /* mov rax, 0x10000010 */
		0xc7, 0x00, 0x78, 0x56, 0x34, 0x12,		   /* mov dword [rax], 0x12345678 */
		0x49, 0xc7, 0xc7, 0x2a, 0, 0, 0,		   /* mov r15, 42 */
		0xf4,
	};

	long_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	engine_kvm.state_get(f->c);
	assert_true(f->last_mmio == 0x12345678 + 0x10);
	assert_int_equal(s->gpr[R15], 42);
	assert_true(s->efer & EFER_LMA);
	assert_int_equal(s->cpl, 0);
}

static uint64_t asking_read(void *opaque, uint64_t offset, unsigned size)
{
	atomic_fetch_or(&((struct fixture *)opaque)->c->attention, ATT_CALLER);
	return 0x40;
}
static const struct io_ops asking_ops = { asking_read, mmio_write, 1, 8 };

/* A stop is asked for in the middle of an instruction that reads from a device and then writes to it: both are done before. */
static void stops_between_instructions(void **state)
{
	static const uint8_t code[] = { 0x80, 0x0e, 0x00, 0x00, 0x01, 0xf4 }; /* or byte [0], 1; hlt */
	struct fixture *f = *state;

	assert_int_equal(mem_map_io(f->m.mem, 0x20000000, 0x1000, &asking_ops, f, "asking", NULL), 0);
	f->c->s.seg[SEG_DS].base = 0x20000000;
	real_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_KICK);
	assert_int_equal(f->last_mmio, 0x41);
	engine_kvm.state_get(f->c);
	assert_int_equal(f->c->s.rip, CODE + 5);
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
}

static void triple_fault_is_a_shutdown(void **state)
{
	struct fixture *f = *state;
	static const uint8_t code[] = { 0x0f, 0x0b }; /* ud2, and no IDT */

	f->c->s.idtr = (struct x86_dtable){ 0, 0 };
	long_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_SHUTDOWN);
}

static void *kick_later(void *opaque)
{
	usleep(20000);
	cpu_notify(opaque, ATT_CALLER);
	return NULL;
}

static void endless_loop_is_kicked(void **state)
{
	struct fixture *f = *state;
	static const uint8_t code[] = { 0xeb, 0xfe }; /* jmp $ */
	pthread_t t;

	real_mode_at(f, code, sizeof(code));
	atomic_store(&f->c->run_state, CPU_RUNNING);
	assert_int_equal(pthread_create(&t, NULL, kick_later, f->c), 0);
	assert_int_equal(engine_kvm.run(f->c), STOP_KICK);
	pthread_join(t, NULL);
	engine_kvm.state_get(f->c);
	assert_int_equal(f->c->s.rip, CODE);
}

/* A CPU that KVM refuses to enter, and one whose file has gone: said, not survived. */
static void state_that_cannot_be(void **state)
{
	struct fixture *f = *state;
	static const uint8_t code[] = { 0xf4 };

	long_mode_at(f, code, sizeof(code));
	f->c->s.cr4 |= 1ull << 31; /* no such bit: KVM_SET_SREGS says no */
	assert_int_equal(engine_kvm.state_check(f->c, &(struct err){ 0 }), -EINVAL);
	assert_int_equal(engine_kvm.run(f->c), STOP_ERROR);
	assert_string_equal(f->c->error, "its state cannot be loaded");
}

static void closed_under_us(void **state)
{
	struct fixture *f = *state;
	struct kvm_cpu *k = f->c->engine_data;
	static const uint8_t code[] = { 0xe6, 0x80, 0xeb, 0xfc }; /* out 0x80, al; again */
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

	real_mode_at(f, code, sizeof(code));
	atomic_fetch_or(&f->c->attention, ATT_CALLER);
	assert_int_equal(engine_kvm.run(f->c), STOP_KICK);
	assert_int_equal(dup2(nothing, k->fd), k->fd);
	close(nothing);
	assert_int_equal(engine_kvm.run(f->c), STOP_ERROR);
	assert_non_null(f->c->error);
}

/* 200 writes to a device that takes them late: few exits, all of them in order, and before the port that follows. */
static void writes_are_gathered(void **state)
{
	struct fixture *f = *state;
	struct kvm_cpu *k = f->c->engine_data;
	static const uint8_t code[] = {
		0xb9, 200, 0, 0, 0,				   /* mov ecx, 200 */
		0x48, 0xb8, 0, 0, 0, 0x20, 0, 0, 0, 0,		   /* mov rax, 0x20000000 */
		0x89, 0x08,					   /* again: mov [rax], ecx */
		0xff, 0xc9,					   /* dec ecx */
		0x75, 0xfa,					   /* jnz again */
		0xe6, 0x81,					   /* out 0x81, al */
		0xf4,
	};

	if (!k->ring) {
		print_message("skipped: this KVM gathers no writes\n");
		skip();
	}
	assert_int_equal(mem_map_io(f->m.mem, 0x20000000, 0x1000, &late_ops, f, "late", NULL), 0);
	assert_int_equal(k->vm->nzones, 1);
	f->expected = 200;
	long_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	assert_int_equal(f->expected, 0);
	assert_int_equal(f->left_at_out, 0);
	assert_in_range(k->exits_mmio, 0, 10);
	assert_in_range(k->coalesced, 150, 200);
	assert_int_equal(mem_unmap(f->m.mem, 0x20000000, "late"), 0);
	assert_int_equal(k->vm->nzones, 0);
}

static uint64_t rung(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* Doorbells ring without an exit, wherever the device is moved to; what is none is an exit, and so is all after it is gone. */
static void doorbells_ring(void **state)
{
	struct fixture *f = *state;
	struct kvm_cpu *k = f->c->engine_data;
	static const uint8_t code[] = {
		0x48, 0xb8, 0, 0, 0, 0x20, 0, 0, 0, 0,		   /* mov rax, 0x20000000 */
		0x66, 0xc7, 0x40, 0x10, 5, 0,			   /* mov word [rax + 0x10], 5 */
		0xc7, 0x40, 0x10, 6, 0, 0, 0,			   /* mov dword [rax + 0x10], 6 */
		0xc7, 0x40, 0x20, 7, 0, 0, 0,			   /* mov dword [rax + 0x20], 7 */
		0xc7, 0x40, 0x20, 8, 0, 0, 0,			   /* mov dword [rax + 0x20], 8 */
		0xf4,
	};

	for (unsigned i = 0; i < 2; i++)
		f->bell[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(mem_map_io(f->m.mem, 0x30000000, 0x1000, &bell_ops, f, "bell", NULL), 0);
	assert_int_equal(k->vm->nbells, 2);
	assert_int_equal(mem_unmap(f->m.mem, 0x30000000, "bell"), 0);
	assert_int_equal(k->vm->nbells, 0);
	assert_int_equal(mem_map_io(f->m.mem, 0x20000000, 0x1000, &bell_ops, f, "bell", NULL), 0);
	assert_int_equal(k->vm->nbells, 2);
	long_mode_at(f, code, sizeof(code));
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	assert_int_equal(rung(f->bell[0]), 2);
	assert_int_equal(rung(f->bell[1]), 1);
	assert_int_equal(f->rung, 1);
	assert_int_equal(k->exits_mmio, 1);
	assert_int_equal(mem_unmap(f->m.mem, 0x20000000, "bell"), 0);
	assert_int_equal(k->vm->nbells, 0);
	long_mode_at(f, code, sizeof(code));
	f->c->s.activity = ACTIVITY_RUN;
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	assert_int_equal(rung(f->bell[0]) + rung(f->bell[1]), 0);
	assert_int_equal(k->exits_mmio, 5);
	close(f->bell[0]);
	close(f->bell[1]);
}

/* Without hardware behind KVM there are none, unless asked for. */
static void doorbells_need_hardware(void **state)
{
	struct fixture *f = *state;
	struct kvm_cpu *k = f->c->engine_data;

	assert_int_equal(mem_map_io(f->m.mem, 0x20000000, 0x1000, &bell_ops, f, "bell", NULL), 0);
	assert_int_equal(k->vm->nbells, 0);
}

/* KVM that executes guests in software writes past the end of a ring: it is not to be had there. */
static void rings_need_hardware(void **state)
{
	struct fixture *f = *state;
	struct machine other = f->m;
	struct err e = { 0 };

	other.engine_options.dirty_ring = ENGINE_ON;
	other.accelerated = false;
	other.engine_data = NULL;
	assert_int_equal(engine_kvm.vm_attach(&other, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "dirty=ring"));
}

/*
 * What a guest was promised and KVM cannot hold is said by name, and nothing is taken away; a machine that has not started is told of
 * another model. Of these bits one is reserved, the other was to be PCOMMIT, which no processor has.
 */
static void promises_are_kept(void **state)
{
	struct fixture *f = *state;
	struct machine other = f->m;
	struct cpuid_model model = f->cpuid;
	struct err e = { 0 };

	for (unsigned i = 0; i < model.count; i++) {
		if (model.entry[i].leaf == 0x80000001)
			model.entry[i].edx |= 1u << 18;
		if (model.entry[i].leaf == 7 && !model.entry[i].subleaf)
			model.entry[i].ebx |= 1u << 22;
	}
	other.cpuid = &model;
	other.cpuid_promised = true;
	other.engine_data = NULL;
	assert_int_equal(engine_kvm.vm_attach(&other, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "lacks what the guest was promised: 7.ebx[22] 80000001.edx[18]"));
	assert_null(other.engine_data);
	strcpy(model.name, "v3");
	other.cpuid_promised = false;
	assert_int_equal(engine_kvm.vm_attach(&other, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "cannot offer CPU model v3"));
	assert_non_null(strstr(e.text, " 7.ebx[22] 80000001.edx[18]"));
}

static void options_are_read(void **state)
{
	static const char *const bad[] = { "", "kv", "kvm,", "kvm,irqchip", "kvm,irqchip=splits", "dbt,irqchip=split", "auto,doorbells=on",
					   "kvm,,doorbells=on" };
	const struct engine_ops *ops;
	struct engine_options o;

	assert_int_equal(engine_parse("kvm,doorbells=on,irqchip=split,dirty=log,irqfds=on", &ops, &o, NULL), 0);
	assert_ptr_equal(ops, &engine_kvm);
	assert_int_equal(o.doorbells, ENGINE_ON);
	assert_int_equal(o.lapic, ENGINE_ON);
	assert_int_equal(o.dirty_ring, ENGINE_OFF);
	assert_int_equal(o.irqfds, ENGINE_ON);
	assert_int_equal(engine_parse("dbt", &ops, &o, NULL), 0);
	assert_int_equal(o.doorbells, ENGINE_AUTO);
	assert_int_equal(engine_parse("auto", &ops, &o, NULL), 0);
	assert_null(ops);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(engine_parse(bad[i], &ops, &o, NULL), -EINVAL);
}

/* A breakpoint stops before its instruction, a watchpoint says which one it was, a step is one instruction. */
static void points_and_steps(void **state)
{
	struct fixture *f = *state;
	/* nop; mov [0x5000], al; nop; hlt */
	static const uint8_t code[] = { 0x90, 0xa2, 0x00, 0x50, 0x90, 0xf4 };
	struct cpu_debug *d = &f->c->debug;

	real_mode_at(f, code, sizeof(code));
	d->hit = UINT64_MAX;
	d->active = d->step = true;
	engine_kvm.debug_set(f->c);
	assert_int_equal(engine_kvm.run(f->c), STOP_DEBUG);
	engine_kvm.state_get(f->c);
	assert_int_equal(f->c->s.rip, CODE + 1);
	assert_false(f->c->s.rflags & FLAG_TF);
	d->step = false;
	d->nbreaks = d->nwatches = 1;
	d->breaks[0] = CODE + 4;
	d->watches[0].at = 0x5000;
	d->watches[0].len = 1;
	d->watches[0].on_write = true;
	engine_kvm.debug_set(f->c);
	assert_int_equal(engine_kvm.run(f->c), STOP_DEBUG);
	engine_kvm.state_get(f->c);
	assert_int_equal(f->c->s.rip, CODE + 4);
	d->active = false;
	d->nbreaks = d->nwatches = 0;
	engine_kvm.debug_set(f->c);
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
}

/* Every kind of internal error has its words, and data of any length do no harm. */
static void internal_errors_are_said(void **state)
{
	struct kvm_run run = { 0 };

	for (uint32_t kind = 0; kind < 6; kind++) {
		run.internal.suberror = kind;
		run.internal.ndata = kind * 1000;
		memset(run.internal.data, 0xff, sizeof(run.internal.data));
		assert_non_null(strstr(kvm_internal_error(&run), kind && kind < 5 ? " " : "internal error"));
	}
}

/* Every kind of system event has its own words, and those that are not known have some. */
static void system_events_are_said(void **state)
{
	const char *said[8];

	for (uint32_t kind = 0; kind < ARRAY_LEN(said); kind++) {
		struct kvm_run run = { .exit_reason = KVM_EXIT_SYSTEM_EVENT };

		run.system_event.type = kind;
		said[kind] = kvm_system_event(&run);
		assert_int_equal(!strcmp(said[kind], "a system event of unknown kind"), kind == 0 || kind == 7);
	}
	assert_string_not_equal(said[KVM_SYSTEM_EVENT_SHUTDOWN], said[KVM_SYSTEM_EVENT_CRASH]);
	assert_string_not_equal(said[KVM_SYSTEM_EVENT_CRASH], said[KVM_SYSTEM_EVENT_SEV_TERM]);
}

/* Pages that the guest writes are in KVM's log and become flags; a second look finds only what was written since. */
static void pages_are_logged(void **state)
{
	struct fixture *f = *state;
	/* mov [0x5000], al; mov [0x7fff], ax; hlt */
	static const uint8_t code[] = { 0xa2, 0x00, 0x50, 0xa3, 0xff, 0x7f, 0xf4 };
	uint64_t bitmap[RAM / GUEST_PAGE / 64];

	mem_dirty_start(f->m.mem);
	real_mode_at(f, code, sizeof(code));
	mem_dirty_fetch(f->m.mem, bitmap);
	assert_int_equal(engine_kvm.run(f->c), STOP_HLT);
	assert_int_equal(mem_dirty_fetch(f->m.mem, bitmap), 3);
	assert_int_equal(bitmap[0], 1 << 5 | 1 << 7 | 1 << 8);
	assert_int_equal(mem_dirty_fetch(f->m.mem, bitmap), 0);
	mem_dirty_stop(f->m.mem);
}

int main(void)
{
	static struct engine_options ring = { .lapic = ENGINE_OFF, .doorbells = ENGINE_OFF, .dirty_ring = ENGINE_ON };
	static struct engine_options bells_on = { .doorbells = ENGINE_ON };
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ports_and_halt, setup, teardown),
		cmocka_unit_test_setup_teardown(state_goes_in_and_out, setup, teardown),
		cmocka_unit_test_setup_teardown(long_mode_and_mmio, setup, teardown),
		cmocka_unit_test_setup_teardown(stops_between_instructions, setup, teardown),
		cmocka_unit_test_setup_teardown(triple_fault_is_a_shutdown, setup, teardown),
		cmocka_unit_test_setup_teardown(endless_loop_is_kicked, setup, teardown),
		cmocka_unit_test_setup_teardown(state_that_cannot_be, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_under_us, setup, teardown),
		cmocka_unit_test_setup_teardown(pages_are_logged, setup, teardown),
		cmocka_unit_test_prestate_setup_teardown(pages_are_logged, setup, teardown, &ring),
		cmocka_unit_test_setup_teardown(writes_are_gathered, setup, teardown),
		cmocka_unit_test_setup_teardown(points_and_steps, setup, teardown),
		cmocka_unit_test_prestate_setup_teardown(doorbells_ring, setup, teardown, &bells_on),
		cmocka_unit_test_setup_teardown(doorbells_need_hardware, setup, teardown),
		cmocka_unit_test_setup_teardown(rings_need_hardware, setup, teardown),
		cmocka_unit_test_setup_teardown(promises_are_kept, setup, teardown),
		cmocka_unit_test(options_are_read),
		cmocka_unit_test(internal_errors_are_said), cmocka_unit_test(system_events_are_said),
	};
	struct err e;

	if (engine_kvm.probe(&e)) {
		printf("skipped: %s\n", e.text);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
