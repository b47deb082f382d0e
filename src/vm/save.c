/* SPDX-License-Identifier: Apache-2.0 */
/* A paused machine to a file and back; the sections are specified in docs/formats/machine-file.md. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "state/stream.h"
#include "vm/save.h"
#include "vm/save-ram.h"
#include "x86/pv.h"
#include "x86/state-desc.h"

#define SECTION_MAX (16u << 20) /* META, CPUS, DEVICES: far below this */

static const struct state_field meta_fields[] = {
	STATE_INT(struct save_meta, memory), STATE_INT(struct save_meta, clock_ns),
	STATE_INT(struct save_meta, tsc), STATE_INT(struct save_meta, tsc_khz),
	STATE_INT(struct save_meta, cpus), STATE_RAW(struct save_meta, engine),
	STATE_RAW(struct save_meta, cpu_model), STATE_INT(struct save_meta, cpuid.count),
	STATE_INT(struct save_meta, cpuid.xcr0_allowed), STATE_INT(struct save_meta, cpuid.phys_bits),
};

static int check_meta(const void *hw, struct err *e)
{
	const struct save_meta *m = hw;

	if (!m->cpus || m->cpus > MAX_CPUS)
		return err_set(e, EINVAL, "saved with %u CPUs; 1 to %d are possible", m->cpus, MAX_CPUS);
	if (!m->memory || m->memory % GUEST_PAGE)
		return err_set(e, EINVAL, "saved with an impossible memory size");
	if (m->cpuid.count > CPUID_MAX)
		return err_set(e, EINVAL, "saved with %u CPUID leaves; at most %d are possible", m->cpuid.count, CPUID_MAX);
	return 0;
}

static const struct state_desc meta_desc = {
	.name = "machine", .version = 1, .size = sizeof(struct save_meta),
	.fields = meta_fields, .nfields = ARRAY_LEN(meta_fields), .check = check_meta,
};

static const struct state_field cpuid_fields[] = {
	STATE_INT(struct cpuid_entry, leaf), STATE_INT(struct cpuid_entry, subleaf),
	STATE_INT(struct cpuid_entry, has_subleaves), STATE_INT(struct cpuid_entry, eax),
	STATE_INT(struct cpuid_entry, ebx), STATE_INT(struct cpuid_entry, ecx), STATE_INT(struct cpuid_entry, edx),
};
static const struct state_desc cpuid_desc = {
	.name = "cpuid", .version = 1, .size = sizeof(struct cpuid_entry),
	.fields = cpuid_fields, .nfields = ARRAY_LEN(cpuid_fields),
};

static int write_section(struct state_writer *w, const char *tag, struct state_buf *b, struct err *e)
{
	int r = state_writer_begin(w, tag, e);

	if (!r)
		r = state_writer_add(w, b->data, b->len, e);
	return r ? r : state_writer_end(w, e);
}

static int save_meta(struct vm *vm, struct state_buf *b, struct err *e)
{
	struct save_meta *m _free_ = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_set(e, ENOMEM, "no memory to save the machine");
	m->memory = vm->config->memory;
	m->cpus = vm->config->cpus;
	m->clock_ns = clock_now(vm->clock);
	m->tsc = clock_tsc(vm->clock);
	m->tsc_khz = clock_tsc_khz(vm->clock);
	snprintf(m->engine, sizeof(m->engine), "%s", vm->machine.engine->name);
	snprintf(m->cpu_model, sizeof(m->cpu_model), "%s", vm->cpuid.name);
	m->cpuid = vm->cpuid;
	m->cpuid.tsc_khz = m->tsc_khz;
	r = state_save(b, &meta_desc, 0, m, e);
	for (unsigned i = 0; !r && i < m->cpuid.count; i++)
		r = state_save(b, &cpuid_desc, i, &m->cpuid.entry[i], e);
	return r;
}

/* Requests posted to a CPU and not served yet. */
struct saved_requests {
	uint32_t attention;
	uint8_t sipi_vector;
};
#define KEPT (ATT_NMI | ATT_INIT | ATT_SIPI)

static const struct state_field request_fields[] = {
	STATE_INT(struct saved_requests, attention), STATE_INT(struct saved_requests, sipi_vector),
};

static int check_requests(const void *hw, struct err *e)
{
	return ((const struct saved_requests *)hw)->attention & ~(uint32_t)KEPT ?
		       err_set(e, EINVAL, "requests to a CPU that cannot be") :
		       0;
}

static const struct state_desc request_desc = {
	.name = "requests", .version = 1, .size = sizeof(struct saved_requests),
	.fields = request_fields, .nfields = ARRAY_LEN(request_fields), .check = check_requests,
};

static int save_cpus(struct vm *vm, struct state_buf *b, struct err *e)
{
	for (unsigned i = 0; i < vm->config->cpus; i++) {
		struct cpu *c = &vm->vcpus[i].cpu;
		struct saved_requests q = { atomic_load(&c->attention) & KEPT, c->sipi_vector };
		int r;

		if (vm->machine.engine->state_get)
			vm->machine.engine->state_get(c);
		r = state_save(b, &x86_state_desc, i, &c->s, e);
		if (!r)
			r = state_save(b, &request_desc, i, &q, e);
		if (r)
			return r;
	}
	return 0;
}

static int save_devices(struct vm *vm, struct state_buf *b, struct err *e)
{
	for (struct device *d = vm->devices; d; d = d->next) {
		int r;

		if (!d->ops->state)
			continue;
		if (d->ops->saving)
			d->ops->saving(d);
		r = state_save(b, d->ops->state, d->instance, d->hw, e);
		if (r)
			return r;
	}
	return 0;
}

int vm_save(struct vm *vm, const char *path, struct err *e)
{
	return vm_save_telling(vm, path, &(struct save_progress){ NULL, NULL }, e);
}

int vm_save_telling(struct vm *vm, const char *path, const struct save_progress *progress, struct err *e)
{
	return vm_save_as(vm, path, vm->config->save_mapped, progress, e);
}

int vm_save_as(struct vm *vm, const char *path, bool mapped, const struct save_progress *progress, struct err *e)
{
	static int (*const part[])(struct vm *, struct state_buf *, struct err *) = { save_meta, save_cpus, save_devices };
	static const char *const tag[] = { "META", "CPUS", "DEVICES" };
	struct state_writer *w;
	int r = 0;

	r = vm_hold(vm, e);
	if (r)
		return err_prefix(e, "saving");
	for (struct device *d = vm->devices; d && !r; d = d->next)
		r = d->ops->save_check ? d->ops->save_check(d, e) : 0;
	if (r) {
		vm_release(vm);
		return r;
	}
	w = state_writer_open(path, e);
	if (!w)
		r = e ? -e->code : -EIO;
	for (unsigned i = 0; !r && i < ARRAY_LEN(part); i++) {
		struct state_buf b = { 0 };

		r = part[i](vm, &b, e);
		if (!r)
			r = write_section(w, tag[i], &b, e);
		state_buf_dispose(&b);
	}
	if (!r)
		r = (mapped ? save_image_write : save_ram_write)(vm->machine.mem, w, progress->fn, progress->opaque, e);
	if (!r)
		r = state_writer_commit(w, e);
	state_writer_close(w);
	vm_release(vm);
	return r;
}

static int read_section(struct state_reader *r, const char *tag, struct state_buf *b, struct err *e)
{
	uint64_t length;
	int rc = state_reader_find(r, tag, &length, e);

	if (rc)
		return rc;
	if (length > SECTION_MAX)
		return err_set(e, EINVAL, "section %s is impossibly large", tag);
	b->data = malloc(length ? length : 1);
	if (!b->data)
		return err_set(e, ENOMEM, "no memory to load the machine");
	b->len = b->cap = length;
	return state_reader_get(r, 0, b->data, length, e);
}

int vm_save_read_meta(struct state_reader *r, struct save_meta *meta, struct err *e)
{
	struct state_buf b = { 0 };
	int rc = read_section(r, "META", &b, e);

	if (!rc)
		rc = state_load(&b, &meta_desc, 0, meta, e);
	for (unsigned i = 0; !rc && i < meta->cpuid.count; i++)
		rc = state_load(&b, &cpuid_desc, i, &meta->cpuid.entry[i], e);
	state_buf_dispose(&b);
	meta->engine[sizeof(meta->engine) - 1] = 0;
	meta->cpu_model[sizeof(meta->cpu_model) - 1] = 0;
	return rc;
}

static int load_cpus(struct vm *vm, struct state_buf *b, struct err *e)
{
	for (unsigned i = 0; i < vm->config->cpus; i++) {
		struct cpu *c = &vm->vcpus[i].cpu;
		struct saved_requests q = { 0 };
		int r = state_load(b, &x86_state_desc, i, &c->s, e);

		if (!r)
			r = state_load(b, &request_desc, i, &q, e);
		if (!r)
			c->sipi_vector = q.sipi_vector;
		atomic_fetch_or(&c->attention, q.attention | ATT_IRQ);
		vm->vcpus[i].state_changed = true;

		if (r)
			return r;
	}
	return 0;
}

static int load_devices(struct vm *vm, struct state_buf *b, struct err *e)
{
	for (struct device *d = vm->devices; d; d = d->next) {
		int r;

		if (!d->ops->state)
			continue;
		r = state_load(b, d->ops->state, d->instance, d->hw, e);
		if (r)
			return r;
	}
	return 0;
}

/* Of leaves that tell the counter's frequency only the host's measurement differs. */
static bool leaf_equal(const struct cpuid_entry *a, const struct cpuid_entry *b)
{
	bool frequency = a->leaf == 0x15 || a->leaf == 0x16 || a->leaf == 0x40000010;

	if (a->leaf != b->leaf || a->subleaf != b->subleaf || a->has_subleaves != b->has_subleaves)
		return false;
	return frequency || (a->eax == b->eax && a->ebx == b->ebx && a->ecx == b->ecx && a->edx == b->edx);
}

/* Was the machine built by meta? */
static int check_machine(const struct vm *vm, const struct save_meta *meta, struct err *e)
{
	const struct cpuid_model *m = &vm->cpuid;

	if (vm->config->cpus != meta->cpus || vm->config->memory != meta->memory)
		return err_set(e, EINVAL, "saved with %u CPUs and %llu MiB of memory", meta->cpus,
			       (unsigned long long)(meta->memory >> 20));
	if (m->count != meta->cpuid.count || m->xcr0_allowed != meta->cpuid.xcr0_allowed)
		return err_set(e, EINVAL, "saved with another CPU model");
	for (unsigned i = 0; i < m->count; i++)
		if (!leaf_equal(&m->entry[i], &meta->cpuid.entry[i]))
			return err_set(e, EINVAL, "saved with another CPU model: leaf %#x differs", m->entry[i].leaf);
	return 0;
}

int vm_load(struct vm *vm, struct state_reader *r, const struct save_meta *meta, struct err *e)
{
	struct state_buf cpus = { 0 }, devices = { 0 };
	int rc = check_machine(vm, meta, e);

	if (!rc)
		rc = read_section(r, "CPUS", &cpus, e);
	if (!rc)
		rc = read_section(r, "DEVICES", &devices, e);
	if (!rc)
		rc = load_cpus(vm, &cpus, e);
	if (!rc)
		rc = load_devices(vm, &devices, e);
	if (!rc)
		rc = (save_image_has(r) ? save_image_read : save_ram_read)(vm->machine.mem, r, e);
	state_buf_dispose(&cpus);
	state_buf_dispose(&devices);
	if (rc)
		return rc;
	clock_set(vm->clock, meta->clock_ns);
	/* The guest's TSC goes on where it stopped, whatever this host's counter says. */
	for (unsigned i = 0; i < vm->config->cpus; i++)
		vm->vcpus[i].cpu.s.tsc_offset += (int64_t)(meta->tsc - clock_tsc(vm->clock));
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->ops->loaded)
			d->ops->loaded(d);
	for (unsigned i = 0; i < vm->config->cpus; i++)
		pv_system_time_update(&vm->vcpus[i].cpu); /* this host's counter may have another frequency */
	vm->loaded = true;
	return 0;
}
