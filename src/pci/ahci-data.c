/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command's scatter list: up to 65535 entries { address, byte count - 1 } behind the command in the guest's memory. Data goes
 * straight between the guest's pages and the back-end, a piece at a time; entries need not end with sectors, pieces do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pci/ahci-private.h"

#define LIST_AT 0x80u
#define ENTRY_SIZE 16u

static bool entry_read(struct ahci_slot *s, uint32_t n, uint64_t *address, uint32_t *len)
{
	uint8_t e[ENTRY_SIZE];
	uint32_t count;

	if (n >= s->entries || pci_dma_read(&s->port->ahci->f, s->table + LIST_AT + (uint64_t)n * ENTRY_SIZE, e, sizeof(e)))
		return false;
	memcpy(address, e, 8);
	memcpy(&count, e + 12, 4);
	*address &= ~1ull;
	*len = (count & 0x3fffff) + 1;
	return true;
}

/* Keep the first `len` bytes of the piece. */
static void trim(struct ahci_slot *s, uint32_t len)
{
	unsigned n = 0;

	while (len && n < s->niov) {
		s->iov[n].iov_len = MIN(s->iov[n].iov_len, (size_t)len);
		len -= (uint32_t)s->iov[n++].iov_len;
	}
	s->niov = n;
}

uint32_t slot_map(struct ahci_slot *s, uint32_t most, uint32_t unit)
{
	uint32_t lengths[AHCI_IOVS], total = 0, entry = s->entry, at = s->entry_at, used;
	unsigned n = 0;

	s->niov = 0;
	while (total < most && s->niov < AHCI_IOVS && n < AHCI_IOVS) {
		uint64_t address;
		uint32_t len, take;
		int got;

		if (!entry_read(s, entry, &address, &len))
			break;
		len -= MIN(at, len); /* the guest may have changed it meanwhile */
		take = MIN(len, most - total);
		got = take ? pci_dma_map(&s->port->ahci->f, address + at, take, s->iov + s->niov, AHCI_IOVS - s->niov) : 0;
		if (got < 0)
			break;
		s->niov += (unsigned)got;
		total += take;
		lengths[n++] = len;
		entry++;
		at = 0;
	}
	total -= total % unit;
	trim(s, total);
	used = total;
	for (unsigned i = 0; i < n; i++) {
		if (used < lengths[i]) {
			s->entry_at += used;
			break;
		}
		used -= lengths[i];
		s->entry++;
		s->entry_at = 0;
	}
	return total;
}

void slot_put(struct ahci_slot *s, const void *data, uint32_t len)
{
	const uint8_t *from = data;

	len = slot_map(s, len, 1);
	for (unsigned i = 0; i < s->niov; i++) {
		mem_dma_store(s->port->ahci->env.mem, s->iov[i].iov_base, from, s->iov[i].iov_len);
		from += s->iov[i].iov_len;
	}
	s->moved += len;
}

int slot_bounce(struct ahci_slot *s, uint32_t len)
{
	if (mem_dma_direct(s->port->ahci->env.mem))
		return 0;
	s->bounce = malloc(len);
	s->bounce_iov = (struct iovec){ s->bounce, len };
	return s->bounce ? 0 : -ENOMEM;
}

void slot_arrived(struct ahci_slot *s)
{
	struct mem *mem = s->port->ahci->env.mem;
	const uint8_t *from = s->bounce;

	for (unsigned i = 0; i < s->niov; i++) {
		if (from) {
			mem_dma_store(mem, s->iov[i].iov_base, from, s->iov[i].iov_len);
			from += s->iov[i].iov_len;
		} else {
			mem_dma_done(mem, s->iov[i].iov_base, s->iov[i].iov_len);
		}
	}
	free(s->bounce);
	s->bounce = NULL;
}
