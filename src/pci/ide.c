/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IDE controller as a device: ports, interrupts, requests to the back-ends, saving. What commands mean is in ide-ata.c
 * and ide-atapi.c, the bus master in ide-dma.c; ide-private.h tells how a channel works.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pci/ide-private.h"

/* ---- requests */

void channel_lock(struct ide_channel *c)
{
	pthread_mutex_lock(&c->lock);
}

void channel_unlock(struct ide_channel *c)
{
	bool submit = c->submit;

	c->submit = false;
	pthread_mutex_unlock(&c->lock);
	if (submit)
		block_submit(c->target, &c->request);
}

static void request_done(struct block_request *r, int result)
{
	struct ide_channel *c = r->opaque;

	channel_lock(c);
	c->underway = false;
	ata_done(c, result);
	if (!c->underway)
		pthread_cond_broadcast(&c->rested);
	channel_unlock(c);
}

/* By the back-end's error policy; its lock is held. */
static void request_held(struct block_request *r, bool held)
{
	struct ide_channel *c = container_of(r, struct ide_channel, request);

	pthread_mutex_lock(&c->lock);
	c->held = held;
	pthread_cond_broadcast(&c->rested);
	pthread_mutex_unlock(&c->lock);
}

/* `len` bytes of the buffer, which is what is left and lies within the medium. */
void channel_request(struct ide_channel *c, enum block_op op, uint64_t at, uint32_t len)
{
	CHECK(!c->underway && len <= IDE_BUFFER);
	c->hw->status = ST_BUSY;
	c->iov = (struct iovec){ c->hw->buffer, len };
	c->request = (struct block_request){ .op = op, .now = true, .offset = at, .length = len, .iov = &c->iov, .iovcnt = op == BLOCK_FLUSH ? 0 : 1,
					     .done = request_done, .held = request_held, .opaque = c };
	c->target = ide_selected(c)->block;
	c->underway = c->submit = true;
}

static void channel_rest(struct ide_channel *c)
{
	channel_lock(c);
	while (c->underway && !c->held)
		pthread_cond_wait(&c->rested, &c->lock);
	channel_unlock(c);
}

static void channel_set_holding(struct ide_channel *c, bool on)
{
	for (unsigned i = 0; i < 2; i++)
		if (c->drive[i].block)
			block_set_holding(c->drive[i].block, on);
}

/* ---- interrupts */

static void line_update(struct ide_channel *c)
{
	irq_set(&c->irq, c->hw->irq && !(c->hw->control & CONTROL_NO_IRQ));
}

void channel_irq(struct ide_channel *c)
{
	c->hw->irq = true;
	c->hw->bm_status |= BM_IRQ;
	line_update(c);
}

/* ---- the data port */

static uint64_t data_read(struct ide_channel *c, unsigned size)
{
	struct ide_channel_hw *h = c->hw;
	uint64_t v = 0;
	uint32_t n;

	if (!(h->status & ST_DRQ) || h->dma || (h->phase != PHASE_READ && h->phase != PHASE_DATA))
		return 0;
	n = MIN(size, h->end - h->pos);
	memcpy(&v, h->buffer + h->pos, n);
	h->pos += n;
	if (h->pos == h->end)
		ata_block_taken(c);
	return v;
}

static void data_write(struct ide_channel *c, uint64_t value, unsigned size)
{
	struct ide_channel_hw *h = c->hw;
	uint8_t *to = h->phase == PHASE_PACKET ? h->packet : h->buffer;
	uint32_t n;

	if (!(h->status & ST_DRQ) || (h->phase != PHASE_PACKET && (h->phase != PHASE_WRITE || h->dma)))
		return;
	n = MIN(size, h->end - h->pos);
	memcpy(to + h->pos, &value, n);
	h->pos += n;
	if (h->pos != h->end)
		return;
	if (h->phase == PHASE_PACKET)
		atapi_packet(c);
	else
		ata_block_taken(c);
}

/* Whole units of a block in one go, up to its end; what is odd about the rest is the single form's. */
static unsigned data_read_many(struct ide_channel *c, unsigned size, void *buf, unsigned count)
{
	struct ide_channel_hw *h = c->hw;
	unsigned n;
	uint64_t v;

	n = h->status & ST_DRQ && !h->dma && (h->phase == PHASE_READ || h->phase == PHASE_DATA) ? (h->end - h->pos) / size : 0;
	n = MIN(n, count);
	if (!n) {
		v = data_read(c, size);
		memcpy(buf, &v, size);
		return 1;
	}
	memcpy(buf, h->buffer + h->pos, (size_t)n * size);
	h->pos += n * size;
	if (h->pos == h->end)
		ata_block_taken(c);
	return n;
}

static unsigned data_write_many(struct ide_channel *c, unsigned size, const void *buf, unsigned count)
{
	struct ide_channel_hw *h = c->hw;
	uint64_t v = 0;
	unsigned n;

	n = h->status & ST_DRQ && h->phase == PHASE_WRITE && !h->dma ? (h->end - h->pos) / size : 0;
	n = MIN(n, count);
	if (!n) {
		memcpy(&v, buf, size);
		data_write(c, v, size);
		return 1;
	}
	memcpy(h->buffer + h->pos, buf, (size_t)n * size);
	h->pos += n * size;
	if (h->pos == h->end)
		ata_block_taken(c);
	return n;
}

/* ---- registers */

static uint8_t status_of(const struct ide_channel *c)
{
	return c->drive[ide_unit(c)].present ? c->hw->status : 0;
}

static uint8_t register_read(struct ide_channel *c, unsigned at)
{
	struct ide_channel_hw *h = c->hw;
	unsigned high = h->control & CONTROL_HIGH ? 1 : 0;

	if (!c->drive[0].present && !c->drive[1].present)
		return at == 7 ? 0 : 0xff;
	if (at == 7) {
		h->irq = false;
		line_update(c);
		return status_of(c);
	}
	if (!ide_selected(c)->present)
		return at == 6 ? h->device : 0;
	switch (at) {
	case 1:
		return h->error;
	case 2:
		return h->count[high];
	case 3:
		return h->lba0[high];
	case 4:
		return h->lba1[high];
	case 5:
		return h->lba2[high];
	default:
		return h->device;
	}
}

static void latch(uint8_t r[2], uint8_t v)
{
	r[1] = r[0];
	r[0] = v;
}

static void register_write(struct ide_channel *c, unsigned at, uint8_t v)
{
	struct ide_channel_hw *h = c->hw;

	if (at != 7)
		h->control &= (uint8_t)~CONTROL_HIGH;
	/* a busy drive takes nothing but a reset */
	if (h->status & ST_BUSY && at != 6)
		return;
	switch (at) {
	case 1:
		latch(h->feature, v);
		break;
	case 2:
		latch(h->count, v);
		break;
	case 3:
		latch(h->lba0, v);
		break;
	case 4:
		latch(h->lba1, v);
		break;
	case 5:
		latch(h->lba2, v);
		break;
	case 6:
		if (!(h->status & ST_BUSY))
			h->device = v | 0xa0;
		break;
	default:
		h->irq = false;
		line_update(c);
		if (ide_selected(c)->present && !c->underway)
			ata_command(c, v);
		break;
	}
}

static void control_write(struct ide_channel *c, uint8_t v)
{
	struct ide_channel_hw *h = c->hw;
	bool was = h->control & CONTROL_RESET;

	h->control = v & (CONTROL_NO_IRQ | CONTROL_RESET | CONTROL_HIGH);
	if (v & CONTROL_RESET) {
		h->status = ST_BUSY;
		h->phase = PHASE_NONE;
		h->irq = false;
		h->resetting = true; /* what is underway is forgotten when it is done */
	} else if (was && !c->underway) {
		h->resetting = false;
		h->device = 0xa0;
		ata_signature(c);
	}
	line_update(c);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide_channel *c = opaque;
	uint64_t v = 0;

	channel_lock(c);
	if (offset == 0) {
		v = data_read(c, size);
	} else {
		for (unsigned i = 0; i < size && offset + i < 8; i++)
			v |= (uint64_t)register_read(c, (unsigned)offset + i) << 8 * i;
	}
	channel_unlock(c);
	return v;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide_channel *c = opaque;

	channel_lock(c);
	if (offset == 0) {
		data_write(c, value, size);
	} else {
		for (unsigned i = 0; i < size && offset + i < 8; i++)
			register_write(c, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
	}
	channel_unlock(c);
}

static unsigned port_read_many(void *opaque, uint64_t offset, unsigned size, void *buf, unsigned count)
{
	struct ide_channel *c = opaque;
	unsigned n;

	if (offset || !count)
		return 0;
	channel_lock(c);
	n = data_read_many(c, size, buf, count);
	channel_unlock(c);
	return n;
}

static unsigned port_write_many(void *opaque, uint64_t offset, unsigned size, const void *buf, unsigned count)
{
	struct ide_channel *c = opaque;
	unsigned n;

	if (offset || !count)
		return 0;
	channel_lock(c);
	n = data_write_many(c, size, buf, count);
	channel_unlock(c);
	return n;
}

static uint64_t control_port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide_channel *c = opaque;
	uint8_t v;

	channel_lock(c);
	v = status_of(c);
	channel_unlock(c);
	return v;
}

static void control_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide_channel *c = opaque;

	channel_lock(c);
	control_write(c, (uint8_t)value);
	channel_unlock(c);
}

static uint64_t bm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide *ide = opaque;
	struct ide_channel *c = &ide->channel[offset >> 3 & 1];
	uint64_t v = 0;

	channel_lock(c);
	for (unsigned i = 0; i < size; i++)
		v |= dma_read(c, ((unsigned)offset + i) & 7) << 8 * i;
	channel_unlock(c);
	return v;
}

static void bm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide *ide = opaque;
	struct ide_channel *c = &ide->channel[offset >> 3 & 1];

	channel_lock(c);
	for (unsigned i = 0; i < size; i++)
		dma_write(c, ((unsigned)offset + i) & 7, (uint8_t)(value >> 8 * i));
	channel_unlock(c);
}

static const struct io_ops port_io = {
	.read = port_read, .write = port_write, .min = 1, .max = 4, .read_many = port_read_many, .write_many = port_write_many,
};
static const struct io_ops control_io = { control_port_read, control_port_write, 1, 1 };
static const struct io_ops bm_io = { bm_read, bm_write, 1, 4 };

/* ---- saving and the rest of life */

static int channel_check(const struct ide_channel_hw *h, struct err *e)
{
	bool bad = h->phase >= PHASE_COUNT || h->filled > IDE_BUFFER || h->end > IDE_BUFFER || h->pos > h->end ||
		   (h->phase == PHASE_PACKET && h->end > sizeof(h->packet)) || h->block > IDE_BUFFER || h->at >> 60;

	for (unsigned i = 0; i < 2; i++)
		bad |= h->drive[i].multiple > 16;
	return bad ? err_set(e, EINVAL, "ide: an impossible transfer") : 0;
}

static int ide_check(const void *opaque, struct err *e)
{
	const struct ide_hw *hw = opaque;
	int r = channel_check(&hw->channel[0], e);

	return r ? r : channel_check(&hw->channel[1], e);
}

#define CHANNEL_FIELDS(n)                                                                                              \
	STATE_RAW(struct ide_hw, channel[n].feature), STATE_RAW(struct ide_hw, channel[n].count),                      \
	STATE_RAW(struct ide_hw, channel[n].lba0), STATE_RAW(struct ide_hw, channel[n].lba1),                          \
	STATE_RAW(struct ide_hw, channel[n].lba2), STATE_INT(struct ide_hw, channel[n].device),                        \
	STATE_INT(struct ide_hw, channel[n].status), STATE_INT(struct ide_hw, channel[n].error),                       \
	STATE_INT(struct ide_hw, channel[n].control), STATE_INT(struct ide_hw, channel[n].command),                    \
	STATE_INT(struct ide_hw, channel[n].irq), STATE_INT(struct ide_hw, channel[n].phase),                          \
	STATE_INT(struct ide_hw, channel[n].dma), STATE_INT(struct ide_hw, channel[n].resetting),                      \
	STATE_INT(struct ide_hw, channel[n].at), STATE_INT(struct ide_hw, channel[n].left),                            \
	STATE_INT(struct ide_hw, channel[n].pos), STATE_INT(struct ide_hw, channel[n].end),                            \
	STATE_INT(struct ide_hw, channel[n].filled), STATE_INT(struct ide_hw, channel[n].block),                       \
	STATE_RAW(struct ide_hw, channel[n].packet), STATE_INT(struct ide_hw, channel[n].bm_command),                  \
	STATE_INT(struct ide_hw, channel[n].bm_status), STATE_INT(struct ide_hw, channel[n].bm_table),                 \
	STATE_INT(struct ide_hw, channel[n].bm_next), STATE_INT(struct ide_hw, channel[n].bm_address),                 \
	STATE_INT(struct ide_hw, channel[n].bm_count), STATE_INT(struct ide_hw, channel[n].bm_last),                   \
	STATE_RAW(struct ide_hw, channel[n].drive), STATE_RAW(struct ide_hw, channel[n].buffer)

static const struct state_field fields[] = { CHANNEL_FIELDS(0), CHANNEL_FIELDS(1) };

static const struct state_desc ide_state = {
	.name = "ide", .version = 1, .size = sizeof(struct ide_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = ide_check,
};

static void channel_reset(struct ide_channel *c)
{
	struct ide_channel_hw *h = c->hw;

	channel_rest(c);
	channel_lock(c);
	memset(h, 0, sizeof(*h));
	h->device = 0xa0;
	for (unsigned i = 0; i < 2; i++) {
		ata_drive_reset(&h->drive[i]);
		if (c->drive[i].present) /* both can do DMA, says the firmware as a rule */
			h->bm_status |= (uint8_t)(0x20 << i);
	}
	ata_signature(c);
	line_update(c);
	channel_unlock(c);
}

static void ide_reset(struct device *d, enum reset_kind kind)
{
	struct ide *ide = container_of(d, struct ide, device);

	channel_reset(&ide->channel[0]);
	channel_reset(&ide->channel[1]);
}

/* What is underway comes to its end, before memory is saved: the CPUs do not start anything new. */
static void ide_pause(struct device *d)
{
	struct ide *ide = container_of(d, struct ide, device);

	for (unsigned i = 0; i < 4; i++) {
		channel_rest(&ide->channel[i / 2]);
		ata_drive_saving(&ide->channel[i / 2].drive[i % 2], &ide->hw.channel[i / 2].drive[i % 2]);
	}
}

/* What failed is tried again. */
static void ide_resume(struct device *d)
{
	struct ide *ide = container_of(d, struct ide, device);

	for (unsigned i = 0; i < 4; i++)
		if (ide->channel[i / 2].drive[i % 2].block)
			block_retry(ide->channel[i / 2].drive[i % 2].block);
}

static int ide_save_check(struct device *d, struct err *e)
{
	struct ide *ide = container_of(d, struct ide, device);
	int r = 0;

	for (unsigned i = 0; i < 2 && !r; i++) {
		channel_lock(&ide->channel[i]);
		if (ide->channel[i].held)
			r = err_set(e, EBUSY, "an IDE disk has failed, and a request is still to be tried again: let the "
					      "machine go on first");
		channel_unlock(&ide->channel[i]);
	}
	return r;
}

static void ide_loaded(struct device *d)
{
	struct ide *ide = container_of(d, struct ide, device);

	for (unsigned i = 0; i < 2; i++) {
		struct ide_channel *c = &ide->channel[i];

		channel_lock(c);
		/* nothing was underway when it was saved; a transfer of a drive that is not there is over */
		if (c->hw->phase != PHASE_NONE && !ide_selected(c)->present)
			c->hw->phase = PHASE_NONE;
		for (unsigned n = 0; n < 2; n++)
			ata_drive_loaded(&c->drive[n], &c->hw->drive[n]);
		line_update(c);
		channel_unlock(c);
	}
}

static void ide_destroy(struct device *d)
{
	struct ide *ide = container_of(d, struct ide, device);

	for (unsigned i = 0; i < 2; i++) {
		channel_set_holding(&ide->channel[i], false);
		channel_rest(&ide->channel[i]);
		pthread_mutex_destroy(&ide->channel[i].lock);
		pthread_cond_destroy(&ide->channel[i].rested);
	}
	pci_function_dispose(&ide->f);
	free(ide);
}

static const struct device_ops ide_ops = {
	.state = &ide_state,
	.reset = ide_reset,
	.saving = ide_pause, /* tests save without pausing */
	.pause = ide_pause,
	.resume = ide_resume,
	.save_check = ide_save_check,
	.loaded = ide_loaded,
	.destroy = ide_destroy,
};

static int ports_init(struct ide *ide, struct device_env *env, struct err *e)
{
	static const uint16_t first[2] = { 0x1f0, 0x170 };
	static const char *const name[2] = { "ide-0", "ide-1" };
	int r = 0;

	for (unsigned i = 0; i < 2 && !r; i++) {
		r = ports_map(env->ports, first[i], 8, &port_io, &ide->channel[i], name[i], e);
		if (!r)
			r = ports_map(env->ports, (uint16_t)(first[i] + 0x206), 1, &control_io, &ide->channel[i], name[i], e);
	}
	return r;
}

struct device *ide_create(struct pci_bus *bus, struct device_env *env, const struct ide_drive_config drive[4],
			  const struct irq_line irq[2], struct err *e)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x7010, .subsystem_vendor = 0x1af4,
						.subsystem = 0x1100, .class_code = 0x010180 };
	struct ide *ide = calloc(1, sizeof(*ide));

	if (!ide) {
		err_set(e, ENOMEM, "no memory for the IDE controller");
		return NULL;
	}
	ide->device = (struct device){ .ops = &ide_ops, .hw = &ide->hw };
	ide->env = *env;
	for (unsigned i = 0; i < 2; i++) {
		struct ide_channel *c = &ide->channel[i];

		c->ide = ide;
		c->hw = &ide->hw.channel[i];
		c->irq = irq[i];
		pthread_mutex_init(&c->lock, NULL);
		pthread_cond_init(&c->rested, NULL);
		for (unsigned n = 2 * i; n < 2 * i + 2; n++)
			if (drive[n].present)
				ata_drive_init(&c->drive[n & 1], drive[n].cdrom, drive[n].block, drive[n].serial);
	}
	pci_function_init(&ide->f, &id, NULL, NULL);
	pci_add_bar(&ide->f, 4, PCI_BAR_IO, 16, &bm_io, ide, "ide-dma");
	/* timing and decoding: kept, and mean nothing; both channels are on, for kernels that no firmware has switched them on for */
	pci_set_register(&ide->f, 0x40, 4, 0x80008000, 0xf3fff3ff);
	pci_set_register(&ide->f, 0x44, 1, 0, 0xff);
	ide_reset(&ide->device, RESET_COLD);
	if (pci_attach(bus, &ide->f, PCI_DEVFN(1, 1), e) || ports_init(ide, env, e)) {
		ide_destroy(&ide->device);
		return NULL;
	}
	return &ide->device;
}

int ide_change_medium(struct device *d, unsigned drive, struct block *block, bool force)
{
	struct ide *ide = container_of(d, struct ide, device);
	struct ide_channel *c = &ide->channel[drive >> 1 & 1];
	struct ata_drive *v = &c->drive[drive & 1];
	int r;

	channel_set_holding(c, false);
	channel_lock(c);
	while (c->underway)
		pthread_cond_wait(&c->rested, &c->lock);
	if (drive > 3 || !v->present || !v->cdrom)
		r = -ENODEV;
	else
		r = ata_drive_change(v, &c->hw->drive[drive & 1], block, force);
	channel_unlock(c);
	channel_set_holding(c, true);
	return r;
}
