/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that only look. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "board/pc.h"
#include "ctl/agent.h"
#include "ctl/private.h"

int ctl_qmp_capabilities(struct ctl_call *call, struct err *e)
{
	json_t *enable = json_object_get(call->arguments, "enable");

	if (call->session->negotiated)
		return err_set(e, EINVAL, "negotiation is over");
	if (enable && (!json_is_array(enable) || json_array_size(enable)))
		return err_set(e, EINVAL, "there are no capabilities to enable: leave 'enable' out or empty");
	call->session->negotiated = true;
	return 0;
}

int ctl_query_version(struct ctl_call *call, struct err *e)
{
	const char *version = call->ctl->config.version;
	unsigned major = 0, minor = 0, micro = 0;
	char package[64];

	if (sscanf(version, "%u.%u.%u", &major, &minor, &micro) < 1)
		return err_set(e, EINVAL, "the version %s is not made of numbers", version);
	snprintf(package, sizeof(package), "ospite-%s", version);
	/* the member is called qemu in the protocol, whoever speaks it */
	call->result = json_pack("{s:{s:i,s:i,s:i},s:s,s:{s:i}}", "qemu", "major", major, "minor", minor, "micro",
				 micro, "package", package, "ospite", "api", CTL_API);
	return 0;
}

int ctl_query_commands(struct ctl_call *call, struct err *e)
{
	call->result = json_array();
	for (const struct ctl_command *c = ctl_commands; c->name; c++)
		json_array_append_new(call->result, json_pack("{s:s}", "name", c->name));
	return 0;
}

/* ---- the schema: builtin types by their name, objects by "NAME-arg" */

static json_t *schema_members(const char *list)
{
	json_t *members = json_array();
	struct ctl_argument a;

	while (ctl_argument_next(&list, &a)) {
		json_t *m = json_pack("{s:s,s:s}", "name", a.name, "type", a.type);

		if (a.optional)
			json_object_set_new(m, "default", json_null());
		json_array_append_new(members, m);
	}
	return members;
}

static void schema_object(json_t *schema, const char *name, const char *members)
{
	json_array_append_new(schema, json_pack("{s:s,s:s,s:o}", "name", name, "meta-type", "object", "members",
						schema_members(members)));
}

int ctl_query_qmp_schema(struct ctl_call *call, struct err *e)
{
	static const char *const builtins[][2] = {
		{ "str", "string" }, { "int", "int" }, { "bool", "boolean" }, { "number", "number" }, { "any", "value" },
	};
	json_t *schema = call->result = json_array();
	char name[80];

	for (unsigned i = 0; i < ARRAY_LEN(builtins); i++)
		json_array_append_new(schema, json_pack("{s:s,s:s,s:s}", "name", builtins[i][0], "meta-type", "builtin",
							"json-type", builtins[i][1]));
	schema_object(schema, "empty", "");
	schema_object(schema, "object", "");
	json_array_append_new(schema, json_pack("{s:s,s:s,s:s}", "name", "list", "meta-type", "array", "element-type", "any"));
	for (const struct ctl_command *c = ctl_commands; c->name; c++) {
		snprintf(name, sizeof(name), "%s-arg", c->name);
		schema_object(schema, name, c->arguments);
		json_array_append_new(schema, json_pack("{s:s,s:s,s:s,s:s,s:s}", "name", c->name, "meta-type", "command",
							"arg-type", name, "ret-type", c->returns[0] ? c->returns : "empty",
							"ospite-help", c->help));
	}
	for (const struct ctl_event_def *d = ctl_event_defs; d->name; d++) {
		snprintf(name, sizeof(name), "%s-data", d->name);
		schema_object(schema, name, d->members);
		json_array_append_new(schema, json_pack("{s:s,s:s,s:s,s:s}", "name", d->name, "meta-type", "event",
							"arg-type", name, "ospite-help", d->help));
	}
	return 0;
}

/* ---- the machine */

const char *ctl_state_name(struct vm *vm)
{
	switch (vm_state_now(vm)) {
	case VM_INACTIVE:
		return "prelaunch";
	case VM_RUNNING:
		return "running";
	case VM_PAUSED:
		return "paused";
	default:
		return vm->end == VM_END_CRASH ? "guest-panicked" : vm->end == VM_END_ENGINE ? "internal-error" : "shutdown";
	}
}

int ctl_query_status(struct ctl_call *call, struct err *e)
{
	const char *name = ctl_state_name(call->ctl->config.vm);

	if (call->ctl->io_error && !strcmp(name, "paused"))
		name = "io-error";
	call->result = json_pack("{s:b,s:b,s:s}", "running", !strcmp(name, "running"), "singlestep", 0, "status", name);
	return 0;
}

int ctl_query_name(struct ctl_call *call, struct err *e)
{
	call->result = json_pack("{s:s}", "name", call->ctl->config.vm->config->name);
	return 0;
}

int ctl_query_kvm(struct ctl_call *call, struct err *e)
{
	const struct vm *vm = call->ctl->config.vm;

	call->result = json_pack("{s:b,s:b}", "enabled", !strcmp(vm->machine.engine->name, "kvm"), "present",
				 !access("/dev/kvm", R_OK | W_OK));
	return 0;
}

int ctl_query_memory_size_summary(struct ctl_call *call, struct err *e)
{
	call->result = json_pack("{s:I,s:I}", "base-memory", (json_int_t)call->ctl->config.vm->config->memory,
				 "plugged-memory", (json_int_t)0);
	return 0;
}

int ctl_query_cpus_fast(struct ctl_call *call, struct err *e)
{
	static const char *const states[] = { [CPU_READY] = "ready", [CPU_RUNNING] = "running", [CPU_HALTED] = "halted" };
	const struct vm *vm = call->ctl->config.vm;
	char path[32];

	call->result = json_array();
	for (unsigned i = 0; i < vm->machine.ncpus; i++) {
		unsigned state = atomic_load(&vm->vcpus[i].cpu.run_state);

		snprintf(path, sizeof(path), "/machine/cpu[%u]", i);
		json_array_append_new(call->result,
				      json_pack("{s:i,s:s,s:i,s:s,s:s}", "cpu-index", (int)i, "qom-path", path,
						"thread-id", (int)atomic_load(&vm->vcpus[i].tid), "target", "x86_64",
						"ospite-state", state < ARRAY_LEN(states) ? states[state] : "unknown"));
	}
	return 0;
}

/* The guest's, of its first card that has one. */
static void add_address(struct ctl_call *call)
{
	struct pc_net_view v;

	for (unsigned i = 0; call->ctl->config.pc && pc_net_view(call->ctl->config.pc, i, &v); i++) {
		if (!v.addresses[0])
			continue;
		v.addresses[strcspn(v.addresses, " ")] = 0;
		json_object_set_new(call->result, "address", json_string(v.addresses));
		return;
	}
}

int ctl_ospite_query_machine(struct ctl_call *call, struct err *e)
{
	struct ctl *c = call->ctl;
	struct vm *vm = c->config.vm;
	struct timespec now;
	json_int_t us;

	clock_gettime(CLOCK_REALTIME, &now);
	us = (json_int_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 - c->born_us;
	call->result = json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:s,s:i,s:I,s:I,s:I}", "name", vm->config->name, "state",
				 ctl_state_name(vm), "engine", vm->machine.engine->name, "engine-why", vm->engine_why, "cpus",
				 (int)vm->machine.ncpus, "memory", (json_int_t)vm->config->memory, "cpu-model",
				 vm->config->cpu_model ? vm->config->cpu_model : "", "pid", (int)getpid(), "uptime-ms",
				 us / 1000, "virtual-ms", (json_int_t)(clock_now(vm->clock) / 1000000), "started-at",
				 (json_int_t)(c->born_us / 1000000));
	json_object_set_new(call->result, "agent", json_boolean(c->config.pc && pc_port_open(c->config.pc, AGENT_PORT)));
	add_address(call);
	return 0;
}

static void stats_member(void *opaque, const char *name, uint64_t value)
{
	json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

/* Bytes in memory, from /proc. */
static json_int_t resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long long pages = 0, rss = 0;

	if (f) {
		if (fscanf(f, "%lld %lld", &pages, &rss) != 2)
			rss = 0;
		fclose(f);
	}
	return (json_int_t)rss * sysconf(_SC_PAGESIZE);
}

int ctl_ospite_query_stats(struct ctl_call *call, struct err *e)
{
	json_t *counters = json_object();
	struct rusage u;

	vm_stats(call->ctl->config.vm, stats_member, counters);
	getrusage(RUSAGE_SELF, &u);
	call->result = json_pack("{s:I,s:I,s:I,s:o}", "user-us",
				 (json_int_t)u.ru_utime.tv_sec * 1000000 + u.ru_utime.tv_usec, "system-us",
				 (json_int_t)u.ru_stime.tv_sec * 1000000 + u.ru_stime.tv_usec, "resident", resident(),
				 "counters", counters);
	return 0;
}
