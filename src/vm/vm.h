/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine and its life: one struct vm owns memory, ports, clock, event loop, devices and vCPU threads;
 * one state machine says what it is doing.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <pthread.h>
#include "base/err.h"
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
	VM_END_CRASH,     /* triple fault with --no-reboot, or the engine failed: vm->end_reason says what */
	VM_END_USER,      /* Ctrl-A X, SIGTERM */
};

struct vm_config {
	const char *name;
	unsigned cpus;
	uint64_t memory;
	const char *engine; /* "auto", "interp", "dbt", "kvm" */
	const char *cpu_model; /* "v2", "v3", "host" */
	bool no_reboot;
};

struct vcpu { /* a host thread and the CPU it runs */
	struct cpu cpu;
	struct vm *vm;
	pthread_t thread;
	bool started;
	int wake_fd; /* eventfd a halted thread waits on, with its timer */
	struct lapic *lapic;
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
	enum vm_end end;
	int exit_status;
	char end_reason[200];
};

/* Everything but devices; paused. The board is built on it next (board/pc.h). */
int vm_create(struct vm **out, const struct vm_config *config, struct err *e);
void vm_destroy(struct vm *vm); /* any state; joins threads, destroys devices in reverse order */
void vm_add_device(struct vm *vm, struct device *d);
struct device_env vm_device_env(struct vm *vm);

int vm_start(struct vm *vm, struct err *e); /* resets everything, starts threads and clock */
int vm_pause(struct vm *vm, struct err *e); /* returns when every vCPU is parked, clock stopped */
int vm_resume(struct vm *vm, struct err *e);
/* Any thread, also a vCPU's own: the machine is to end, or to reset. Returns at once. */
void vm_request_end(struct vm *vm, enum vm_end why, int status, const char *reason);
void vm_request_reset(struct vm *vm);
enum vm_end vm_wait(struct vm *vm); /* until it has ended and all vCPUs are parked */

#endif
