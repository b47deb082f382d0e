/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of every device model. An instance is a struct of the device's own file with two halves: `hw`
 * (what the guest sees; saved) and host-side things (lines, timers, back-ends; rebuilt). It has its own lock:
 * register accesses come from any vCPU thread, timers and back-ends from the event loop.
 */
#ifndef DEV_DEVICE_H
#define DEV_DEVICE_H

#include "base/clock.h"
#include "mem/mem.h"
#include "mem/ports.h"
#include "state/fields.h"
#include "dev/irq.h"

enum reset_kind { RESET_COLD, RESET_WARM };

struct device;

struct device_ops {
	const struct state_desc *state;
	void (*reset)(struct device *d, enum reset_kind kind);
	void (*saving)(struct device *d); /* bring hw up to date before it is read */
	void (*loaded)(struct device *d); /* hw has been replaced: re-derive lines and timers */
	/*
	 * The machine's CPUs have stopped for a while: finish what is underway and touch guest memory no more, until resume. A device
	 * is made paused. For those that work on their own account; no lock of the machine is held.
	 */
	void (*pause)(struct device *d);
	void (*resume)(struct device *d);
	/* Paused, but not to be saved as it is: -errno, and why. May be NULL. */
	int (*save_check)(struct device *d, struct err *e);
	void (*destroy)(struct device *d);
};

/* First member of every instance. */
struct device {
	const struct device_ops *ops;
	unsigned instance; /* 0, 1, ... of this kind */
	void *hw;
	struct device *next; /* the board's list, in wiring order */
};

/* A key going down or up; code: KEY_* of <linux/input-event-codes.h>. */
struct key_event {
	unsigned code;
	bool down;
};

/* Something to be done while no CPU runs; belongs to the device, which keeps it until it has been done. */
struct stop_work {
	void (*fn)(void *opaque);
	void *opaque;
	struct stop_work *next; /* the machine's */
	bool queued;
};

/* What a device is given to attach itself to. */
struct device_env {
	struct mem *mem;
	struct ports *ports;
	struct clock *clock;
	struct evloop *loop;
	void (*when_stopped)(void *vm, struct stop_work *w); /* NULL: no CPU ever runs (tests) */
	void *vm;
};

/*
 * Have w->fn called with all CPUs stopped at an instruction boundary: the way to change the maps of memory and ports. Any
 * thread. From a CPU's own register access it is done before that CPU's next instruction (port accesses end a
 * translated block; so does a store that reached a device only if an interrupt may follow it), not before the access
 * returns. Asking again before it was done asks for nothing more. On a machine not yet started it is done at once.
 */
static inline void env_stopped(const struct device_env *env, struct stop_work *w)
{
	if (env->when_stopped)
		env->when_stopped(env->vm, w);
	else
		w->fn(w->opaque);
}

#endif
