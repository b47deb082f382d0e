/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine and its life: one struct vm owns memory, ports, clock, event loop, devices and vCPU threads;
 * one state machine says what it is doing.
 *
 *	INACTIVE --start--> RUNNING <--pause, resume--> PAUSED
 *	                       +------- end -----+---------> STOPPED
 *
 * Requests (pause, reset, end) make the vCPU threads park: they leave the engine, bring cpu->s up to date and wait.
 * While all are parked the CPUs' states may be read and changed by whoever made them park. What needs all of
 * them parked and nobody waiting for it (reset, end) is done by the last one to park.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <pthread.h>
#include "base/err.h"
#include "base/kick.h"
#include "dev/device.h"
#include "engine/engine.h"
#include "x86/cpuid.h"

enum vm_state { VM_INACTIVE, VM_RUNNING, VM_PAUSED, VM_STOPPED };

/* Why a machine ended. */
enum vm_end {
	VM_END_NONE,
	VM_END_POWER_OFF,
	VM_END_RESET,     /* the guest asked for a reset and --no-reboot was given */
	VM_END_EXIT_PORT, /* status in vm->exit_status */
	VM_END_CRASH,     /* triple fault with --no-reboot: vm->end_reason says what */
	VM_END_ENGINE,    /* the engine failed: vm->end_reason says what */
	VM_END_USER,      /* Ctrl-A X, SIGTERM */
};

struct vm_config {
	const char *name;
	unsigned cpus;
	unsigned cores, threads; /* of a socket, of a core; 0: all CPUs are cores of one */
	uint64_t memory;
	bool huge_pages; /* RAM of the host's reserve of them */
	bool save_mapped; /* memory is saved to be mapped */
	uint64_t files; /* room for files in the address space (mem_map_file) */
	const char *engine; /* "auto", "interp", "dbt", "kvm" */
	const char *cpu_model; /* "v2", "v3", "host" */
	bool no_reboot;
	const struct cpuid_model *cpuid; /* of a saved machine: held constant; NULL: built from cpu_model */
	struct clock_sample born; /* when the start began; zeros: not looked at */
	struct verdict *verdict; /* what is remembered of KVM's speed; used while the machine is made; NULL: nothing */
	const struct engine_ops *engine_ops; /* instead of `engine`: one that is not in the list (tests) */
};

/* What happens to a machine as a whole, for whoever wants to tell others. */
enum vm_event { VM_EVENT_PAUSED, VM_EVENT_RESUMED, VM_EVENT_RESET, VM_EVENT_ENDED };
struct vm_listener { /* the listener's own */
	/* Any thread, with vm->lock held: it must not block nor call anything of this room. */
	void (*fn)(void *opaque, enum vm_event what);
	void *opaque;
	struct vm_listener *next; /* the machine's */
};

struct vcpu { /* a host thread and the CPU it runs */
	struct cpu cpu;
	struct vm *vm;
	pthread_t thread;
	_Atomic pid_t tid; /* of it, once it runs */
	bool started;
	struct kick_thread kick;
	struct lapic *lapic;
	/* under vm->lock, or while parked */
	bool ready;         /* the engine's part is made (or has failed: vm->start_error) */
	bool state_changed; /* cpu->s is to be handed to the engine before it runs */
	bool debug_changed; /* the same for cpu->debug */
	uint64_t exchange_seen; /* the last step of an exchange of engines that this thread has done */
	bool rest_given;    /* its own thread's: what was left of the last huge page of CPUs */
	bool held;          /* stays parked when the machine runs: a debugger steps another one */
	uint64_t halts, timeouts, kicks; /* counters */
};

struct vm {
	const struct vm_config *config;
	struct machine machine;
	struct cpuid_model cpuid;
	struct evloop *loop;
	struct clock *clock;
	struct vcpu *vcpus; /* config->cpus of them */
	struct device *devices; /* in wiring order */
	void (*reset_hook)(void *opaque); /* the board's: after devices, loads the boot state into CPU 0 */
	void *reset_opaque;

	pthread_mutex_t lock; /* state, requests, end */
	pthread_cond_t changed;
	enum vm_state state;
	unsigned stopped_vcpus; /* parked at the moment */
	bool attached; /* the engine */
	bool pausing, resetting, reset_wanted, exiting;
	bool loaded;       /* vm_load has filled it: vm_start does not reset */
	bool start_paused; /* vm_start leaves it PAUSED: somebody wants to look first */
	bool debug_stop;   /* a CPU stopped for the debugger: all are to, until the next vm_resume */
	enum vm_end end;
	int exit_status;
	char end_reason[200];
	struct measured *measured; /* left of choosing the engine; till somebody has time for it */
	int kvm_accelerated; /* measured: 1, or -1: not; 0: not yet */
	char engine_why[300]; /* why this engine and no other */
	struct err start_error;

	struct vm_listener *listeners;
	struct exchange *exchange; /* of engines, underway; under lock */

	struct stop_work *works; /* to be done once all are parked, in this order; under lock */

	struct gdb *gdb; /* the debugger stub, NULL if none */
	/* A CPU ran into what its cpu->debug asks for. On its thread; it parks next. */
	void (*debug_hook)(void *opaque, struct vcpu *v);
	void *debug_opaque;
	/* The state has changed to STOPPED. On a vCPU thread, with vm->lock held. */
	void (*stopped_hook)(void *opaque);
	void *stopped_opaque;
};

/* Everything but devices; paused. The board is built on it next (board/pc.h). */
int vm_create(struct vm **out, const struct vm_config *config, struct err *e);
void vm_destroy(struct vm *vm); /* any state; joins threads, destroys devices in reverse order */
void vm_add_device(struct vm *vm, struct device *d);
void vm_remove_device(struct vm *vm, struct device *d); /* no CPU runs and nobody saves: vm_hold, or a stop_work */
struct device_env vm_device_env(struct vm *vm);
/* What struct device_env offers to devices as env_stopped(). Any thread, also a vCPU's own in the middle of an access. */
void vm_when_stopped(struct vm *vm, struct stop_work *w);

int vm_start(struct vm *vm, struct err *e); /* resets everything, starts threads and clock */
/*
 * Returns when every vCPU is parked and the clock stopped. Any thread but a vCPU's. -EBUSY when the machine
 * has ended, -EINVAL when it was never started; nothing to do when it is paused already.
 */
int vm_pause(struct vm *vm, struct err *e);
int vm_resume(struct vm *vm, struct err *e);
/*
 * Go on under another engine: pauses, moves the state, resumes if it ran. The CPUID that the guest was promised stays as it
 * is; an engine that cannot hold it, or cannot be used here, is refused with the reason and the old one goes on. Any thread but a
 * vCPU's or the event loop's (it waits for the vCPUs).
 */
int vm_change_engine(struct vm *vm, const char *name, struct err *e);
/* Between the two a paused machine stays so: nobody resumes, ends or resets it. -EBUSY when it is not paused. */
int vm_hold(struct vm *vm, struct err *e);
void vm_release(struct vm *vm);
void vm_set_trace(struct vm *vm, struct trace *t); /* before vm_start; the vm owns it from here on */
/* Any thread, also a vCPU's own: the machine is to end, or to reset. Returns at once. */
void vm_request_end(struct vm *vm, enum vm_end why, int status, const char *reason);
void vm_request_reset(struct vm *vm);
void vm_listen(struct vm *vm, struct vm_listener *l);
void vm_unlisten(struct vm *vm, struct vm_listener *l); /* it is not called any more after this */
/* Counters of the engine, the CPUs' threads and their TLBs; exact once the machine is paused or has ended. */
void vm_stats(struct vm *vm, void (*line)(void *opaque, const char *name, uint64_t value), void *opaque);
enum vm_state vm_state_now(struct vm *vm);
enum vm_end vm_wait(struct vm *vm); /* until it has ended and all vCPUs are parked */

/* vcpu.c */
int vcpu_init(struct vcpu *v, struct vm *vm, unsigned id, struct err *e);
void vcpu_dispose(struct vcpu *v);
int vcpu_start(struct vcpu *v, struct err *e); /* its thread; parks at once */
void vcpu_join(struct vcpu *v);                /* vm->exiting is set */

#endif
