/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and network cards that come and go while the machine is there.
 *
 * Coming: back-end first, then, with the machine paused and held, the device at a slot of the bus; then the guest is told to look.
 * Going: the guest is asked; when it ejects the slot (or the machine is reset) the device leaves the machine with all CPUs
 * stopped, and is freed later by whoever calls pc_reap, as closing files may take its time.
 *
 * Network back-ends live on the machine's event loop: they are opened, attached and closed there.
 *
 * A machine made anew from what pc_plugged's text says has each card where it was; numbers of states come from the slot then, and what
 * was given by default (serial number, address) is in the text.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/block.h"
#include "base/evloop.h"
#include "board/pc.h"
#include "board/private.h"
#include "pci/hotplug.h"

struct pc_gone {
	struct pc_gone *next;
	bool is_net;
	struct device *device, *own;
	struct block *block;
	struct net_link *link;
	char id[PC_ID];
};

/* ---- names */

void pc_disk_name(const struct pc_disks *d, unsigned n, char name[PC_ID])
{
	if (d->disk[n].id[0])
		memcpy(name, d->disk[n].id, PC_ID);
	else
		snprintf(name, PC_ID, "disk%u", n);
}

void pc_net_name(const struct pc_nets *nets, unsigned n, char name[PC_ID])
{
	if (nets->id[n][0])
		memcpy(name, nets->id[n], PC_ID);
	else
		snprintf(name, PC_ID, "net%u", n);
}

static bool id_taken(const struct pc_plug_place *at, const char *id)
{
	char name[PC_ID];

	for (unsigned n = 0; n < at->disks->count; n++) {
		pc_disk_name(at->disks, n, name);
		if (!at->disks->drive[n].removed && !strcmp(name, id))
			return true;
	}
	for (unsigned n = 0; n < at->nets->count; n++) {
		pc_net_name(at->nets, n, name);
		if (at->nets->link[n] && !strcmp(name, id))
			return true;
	}
	return false;
}

/* The id given, or the next of its kind. */
static int id_choose(const struct pc_plug_place *at, const char *kind, char id[PC_ID], struct err *e)
{
	if (id[0])
		return id_taken(at, id) ? err_set(e, EEXIST, "the machine has a '%s' already", id) : 0;
	for (unsigned n = 0; n < PC_DISKS + PC_NETS; n++) {
		snprintf(id, PC_ID, "%s%u", kind, n);
		if (!id_taken(at, id))
			return 0;
	}
	return err_set(e, ENOSPC, "no name is left");
}

static int slot_choose(const struct pc_plug_place *at, unsigned *slot, struct err *e)
{
	int free = pci_bus_free_slot(at->virtio->pci);

	if (*slot && pci_bus_function(at->virtio->pci, PCI_DEVFN(*slot, 0)))
		return err_set(e, EBUSY, "slot %u is taken", *slot);
	if (!*slot && free < 0)
		return err_set(e, ENOSPC, "all slots of the machine are taken");
	if (!*slot)
		*slot = (unsigned)free;
	return 0;
}

uint32_t pc_plug_reserved(const struct pc_config *config)
{
	uint32_t slots = 0;

	for (unsigned i = 0; i < config->ndisks; i++)
		slots |= (uint32_t)BIT(config->disk[i].slot & 31);
	for (unsigned i = 0; i < config->nnets; i++)
		slots |= (uint32_t)BIT(config->net[i].slot & 31);
	return slots & ~1u;
}

void pc_plug_note(struct pc_plug *p, unsigned slot, bool is_net, unsigned n, struct device *device, struct device *own)
{
	if (slot < PC_SLOTS)
		p->card[slot] = (struct pc_card){ .is_net = is_net, .n = n, .device = device, .own = own };
}

static bool has_key(const char *spec, const char *key)
{
	size_t len = strlen(key);

	for (const char *at = spec; at;) {
		if (!strncmp(at, key, len) && at[len] == '=')
			return true;
		for (at = strchr(at, ','); at && at[1] == ','; at = strchr(at + 2, ',')) /* doubled: within a name */
			;
		at = at ? at + 1 : NULL;
	}
	return false;
}

/* ---- the machine stands still meanwhile */

static int stand_still(struct vm *vm, bool *running, struct err *e)
{
	int r;

	*running = vm_state_now(vm) == VM_RUNNING;
	r = vm_pause(vm, e);
	if (r)
		return r;
	r = vm_hold(vm, e);
	if (r && *running)
		vm_resume(vm, NULL);
	return r;
}

static void go_on(struct vm *vm, bool running)
{
	vm_release(vm);
	if (running)
		vm_resume(vm, NULL);
}

struct loop_call {
	void (*fn)(void *opaque);
	void *opaque;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
};

static void loop_do(void *opaque)
{
	struct loop_call *c = opaque;

	c->fn(c->opaque);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

/* Calls fn on the event loop's thread and waits for it. */
static int on_loop(struct evloop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct loop_call c = { .fn = fn, .opaque = opaque, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	int r = evloop_post(loop, loop_do, &c);

	pthread_mutex_lock(&c.lock);
	while (!r && !c.done)
		pthread_cond_wait(&c.changed, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.changed);
	return r;
}

/* ---- disks */

/* The first place that nothing has; its own are at the end of the list. */
static unsigned disk_place(const struct pc_disks *d)
{
	unsigned n = 0;

	while (n < d->count && !d->drive[n].removed)
		n++;
	return n;
}

static int disk_attach(struct pc_plug_place *at, unsigned n, struct err *e)
{
	struct device_env env = vm_device_env(at->vm);
	struct virtio_board *b = at->virtio;
	bool running;
	int r = stand_still(at->vm, &running, e);

	if (r)
		return r;
	b->env = &env;
	at->disks->count = MAX(at->disks->count, n + 1);
	r = pc_virtio_disk(at->disks, b, n, e);
	b->env = NULL;
	go_on(at->vm, running);
	return r;
}

static int disk_describe(const struct pc_disk *d, struct pc_plugged *out, struct err *e)
{
	char queues[24] = "";

	out->slot = d->slot;
	memcpy(out->id, d->id, sizeof(out->id));
	if (d->queues)
		snprintf(queues, sizeof(queues), ",queues=%u", d->queues);
	if (asprintf(&out->text, "%s,bus=virtio%s,serial=%s,id=%s,slot=%u", d->spec, queues, d->serial, d->id, d->slot) < 0)
		out->text = NULL;
	return out->text ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* What is said of it, checked and completed; the back-end opened. */
static int disk_prepare(struct pc_plug_place *at, unsigned n, char *spec, struct pc_plugged *out, struct err *e)
{
	struct pc_disk *d = &at->disks->disk[n];
	int r = pc_disk_parse(d, spec, e);

	if (!r && (d->bus != PC_DISK_VIRTIO || d->removed))
		r = err_set(e, ENOTSUP, "a disk can come on bus=virtio; on others it has to be there from the start");
	if (!r && (!*d->spec || n >= PC_DISKS))
		r = err_set(e, EINVAL, "needs a file");
	if (!r)
		r = slot_choose(at, &d->slot, e);
	if (!r)
		r = id_choose(at, "disk", d->id, e);
	if (!r && !d->serial[0])
		memcpy(d->serial, d->id, sizeof(d->serial) - 1); /* the rest of it is zero */
	if (!r)
		r = disk_describe(d, out, e);
	if (!r)
		r = pc_drive_open(at->disks, n, e);
	return r;
}

int pc_plug_add_disk(struct pc_plug_place *at, const char *spec, struct pc_plugged *out, struct err *e)
{
	struct pc_disks *d = at->disks;
	unsigned n = disk_place(d);
	char *text _free_ = NULL;
	int r;

	*out = (struct pc_plugged){ .slot = 0 };
	if (n == PC_DISKS)
		return err_set(e, E2BIG, "there can be %d disks", PC_DISKS);
	if (asprintf(&text, "%s%s", has_key(spec, "bus") ? "" : "bus=virtio,", spec) < 0) {
		text = NULL;
		return err_set(e, ENOMEM, "out of memory");
	}
	r = disk_prepare(at, n, text, out, e);
	if (!r)
		r = disk_attach(at, n, e);
	d->disk[n].spec = NULL;
	if (r) {
		if (!d->drive[n].virtio && d->drive[n].block) {
			block_close(d->drive[n].block);
			d->drive[n].block = NULL;
		}
		d->drive[n].removed = true;
		free(out->text);
		out->text = NULL;
		return r;
	}
	pc_disk_watch(&d->drive[n]);
	pci_hotplug_came(at->plug->controller, out->slot);
	return 0;
}

/* ---- network cards */

struct net_call {
	struct pc_plug_place *at;
	const struct net_config *config;
	unsigned n;
	struct err *e;
	int r;
};

/* On the event loop, the machine standing still. */
static void net_attach_card(void *opaque)
{
	struct net_call *c = opaque;
	struct device_env env = vm_device_env(c->at->vm);

	c->at->virtio->env = &env;
	if (!pc_net_open(c->at->nets, c->at->config, c->config, c->n, env.loop, c->e))
		c->r = -1;
	else
		c->r = pc_virtio_net(c->at->virtio, c->n, c->config->slot, c->e);
	c->at->virtio->env = NULL;
}

static int net_describe(const char *spec, const struct net_config *c, const uint8_t *mac, struct pc_plugged *out, struct err *e)
{
	char id[PC_ID + 8] = "", address[32] = "", slot[16] = "";

	if (!has_key(spec, "id"))
		snprintf(id, sizeof(id), ",id=%s", out->id);
	if (!has_key(spec, "mac"))
		snprintf(address, sizeof(address), ",mac=%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	if (!has_key(spec, "slot"))
		snprintf(slot, sizeof(slot), ",slot=%u", c->slot);
	out->slot = c->slot;
	if (asprintf(&out->text, "%s%s%s%s", spec, address, id, slot) < 0)
		out->text = NULL;
	return out->text ? 0 : err_set(e, ENOMEM, "out of memory");
}

static unsigned net_place(const struct pc_nets *nets)
{
	unsigned n = 0;

	while (n < nets->count && nets->link[n])
		n++;
	return n;
}

/* A connection to the switch that whoever asks for the card has brought: the process may not find the way by itself. 0: none. */
static int net_dialed(const struct pc_plug_place *at, const struct net_config *c)
{
	const struct block_files *files = at->disks->files;
	char name[sizeof(c->argument) + 8];
	int fd;

	if (c->kind != NET_SWITCH || !files)
		return 0;
	snprintf(name, sizeof(name), "switch:%s", c->argument);
	fd = files->open(files->opaque, name, true);
	return MAX(fd, 0);
}

int pc_plug_add_net(struct pc_plug_place *at, const char *spec, struct pc_plugged *out, struct err *e)
{
	struct net_config c;
	struct net_call call = { .at = at, .config = &c, .n = net_place(at->nets), .e = e };
	bool running;
	int r;

	*out = (struct pc_plugged){ .slot = 0 };
	if (call.n == PC_NETS)
		return err_set(e, E2BIG, "there can be %d network cards", PC_NETS);
	r = net_config_parse(&c, spec, e);
	if (!r && c.removed)
		r = err_set(e, EINVAL, "needs a network");
	memcpy(out->id, c.id, sizeof(out->id));
	if (!r)
		r = slot_choose(at, &c.slot, e);
	if (!r)
		r = id_choose(at, "net", out->id, e);
	memcpy(c.id, out->id, sizeof(c.id));
	if (!r)
		r = stand_still(at->vm, &running, e);
	if (r)
		return r;
	c.dialed = net_dialed(at, &c);
	r = on_loop(at->vm->loop, net_attach_card, &call);
	if (r && c.dialed)
		close(c.dialed);
	go_on(at->vm, running);
	r = r ? err_set(e, ENOMEM, "out of memory") : call.r;
	if (!r)
		r = net_describe(spec, &c, net_mac(at->nets->link[call.n]), out, e);
	if (r)
		return r;
	pci_hotplug_came(at->plug->controller, out->slot);
	return 0;
}

/* ---- going */

static bool card_is(const struct pc_plug_place *at, const struct pc_card *c, const char *id)
{
	char name[PC_ID];

	if (!c->device)
		return false;
	if (c->is_net)
		pc_net_name(at->nets, c->n, name);
	else
		pc_disk_name(at->disks, c->n, name);
	return !strcmp(name, id);
}

int pc_plug_ask(struct pc_plug_place *at, const char *id, struct err *e)
{
	for (unsigned slot = 0; slot < PC_SLOTS; slot++) {
		if (!card_is(at, &at->plug->card[slot], id))
			continue;
		pci_hotplug_ask(at->plug->controller, slot);
		return 0;
	}
	return id_taken(at, id) ? err_set(e, ENOTSUP, "'%.40s' cannot be removed: only disks on bus=virtio and network cards can", id) :
				  err_set(e, ENODEV, "the machine has no disk or network card '%.40s'", id);
}

void pc_plug_gone(struct pc_plug *p, struct pc_disks *d, struct pc_nets *nets, struct vm *vm, struct pci_bus *bus, unsigned slot)
{
	struct pci_function *f = pci_bus_function(bus, PCI_DEVFN(slot, 0));
	struct pc_card *c = &p->card[slot];
	struct pc_gone *g = c->device && f ? calloc(1, sizeof(*g)) : NULL;

	if (!g) /* nothing that could go; or no memory, then it stays */
		return;
	*g = (struct pc_gone){ .is_net = c->is_net, .device = c->device, .own = c->own };
	if (g->device->ops->pause)
		g->device->ops->pause(g->device); /* for good: it touches guest memory no more */
	g->device->ops->reset(g->device, RESET_WARM);
	pci_detach(f);
	vm_remove_device(vm, g->device);
	if (g->own)
		vm_remove_device(vm, g->own);
	if (c->is_net) {
		pc_net_name(nets, c->n, g->id);
		g->link = nets->link[c->n];
		nets->link[c->n] = NULL;
		nets->user[c->n] = false;
	} else {
		pc_disk_name(d, c->n, g->id);
		g->block = d->drive[c->n].block;
		d->drive[c->n] = (struct pc_drive){ .ide = -1, .ahci = -1, .disks = d, .removed = true };
	}
	*c = (struct pc_card){ .device = NULL };
	pthread_mutex_lock(&p->lock);
	g->next = p->gone;
	p->gone = g;
	if (p->fn)
		p->fn(p->opaque);
	pthread_mutex_unlock(&p->lock);
}

static void gone_free(void *opaque)
{
	struct pc_gone *g = opaque;

	if (g->block)
		block_set_stopped(g->block, NULL, NULL);
	if (g->own)
		g->own->ops->destroy(g->own);
	g->device->ops->destroy(g->device);
	if (g->block)
		block_close(g->block);
	net_close(g->link);
}

static struct pc_gone *gone_take(struct pc_plug *p)
{
	struct pc_gone *g;

	pthread_mutex_lock(&p->lock);
	g = p->gone;
	if (g)
		p->gone = g->next;
	pthread_mutex_unlock(&p->lock);
	return g;
}

bool pc_plug_free_one(struct pc_plug *p, struct evloop *loop, char id[PC_ID])
{
	struct pc_gone *g = gone_take(p);

	if (!g)
		return false;
	memcpy(id, g->id, PC_ID);
	if (!g->is_net)
		gone_free(g);
	else if (on_loop(loop, gone_free, g)) { /* no memory: at the end then */
		pthread_mutex_lock(&p->lock);
		g->next = p->gone;
		p->gone = g;
		pthread_mutex_unlock(&p->lock);
		return false;
	}
	free(g);
	return true;
}

void pc_plug_dispose(struct pc_plug *p)
{
	struct pc_gone *g;

	while ((g = gone_take(p))) {
		gone_free(g);
		free(g);
	}
	pthread_mutex_destroy(&p->lock);
}
