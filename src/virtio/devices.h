/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio models. Each gives a `struct virtio` for the board to put on a bus; the machine's destruction ends it.
 */
#ifndef VIRTIO_DEVICES_H
#define VIRTIO_DEVICES_H

#include "virtio/virtio.h"

struct block;
struct chr;

struct virtio_block_config {
	struct block *block; /* the caller's, until the device is gone */
	const char *serial;  /* up to 20 characters; NULL: none */
	unsigned queues;     /* 1 to 16 */
};
struct virtio *virtio_block_create(const struct device_env *env, unsigned instance, const struct virtio_block_config *c,
				   struct err *e);
/* The image has another size now: the guest is told. Any thread. */
void virtio_block_resized(struct virtio *v);

/* Random bytes from the host's getrandom; bytes a second at most, 0: no limit. */
struct virtio *virtio_rng_create(const struct device_env *env, unsigned instance, uint64_t rate, struct err *e);

#endif
