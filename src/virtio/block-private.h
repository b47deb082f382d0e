/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the disk: block.c, and block-save.c for requests that outlive their machine. Locking: see block.c. */
#ifndef VIRTIO_BLOCK_PRIVATE_H
#define VIRTIO_BLOCK_PRIVATE_H

#include <sys/queue.h>
#include "backend/block.h"
#include "virtio/devices.h"

#define DISK_QUEUES 16
#define SERIAL_LENGTH 20

struct disk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_exp, alignment_offset;
	uint16_t min_io;
	uint32_t opt_io;
	uint8_t wce, unused;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_alignment;
	uint32_t max_zeroes_sectors, max_zeroes_seg;
	uint8_t zeroes_may_unmap, unused1[3];
};
#define CONFIG_LENGTH 60
_Static_assert(offsetof(struct disk_config, zeroes_may_unmap) == CONFIG_LENGTH - 4, "virtio 1.2, 5.2.4");

struct disk_request {
	struct block_request r;
	struct vq_chain chain;
	struct disk_queue *q;
	struct disk_request *next; /* free */
	uint8_t *status;           /* where the guest wants it */
	struct iovec *data;        /* within chain.iov */
	unsigned ndata;
	uint64_t length;
	void *bounce; /* engine=verify: data read must not go to the guest's memory by itself */
	struct iovec bounce_iov;
	LIST_ENTRY(disk_request) same; /* held, or restored */
};

LIST_HEAD(disk_list, disk_request);

struct disk_queue {
	struct disk *d;
	struct virtqueue *vq;
	bool busy, again;
	struct disk_request *free;
	unsigned underway, held; /* held: of them, by the error policy, or restored and not yet submitted */
	struct disk_list kept;	 /* by the error policy */
	struct disk_list restored;
	pthread_cond_t idle;
};

/* Saved beside the registers: requests that are held, written and read by block-save.c. */
#define DISK_HELD_ROOM (64u << 10)
struct disk_hw {
	uint32_t count, used;
	uint8_t held[DISK_HELD_ROOM];
};

struct disk {
	struct virtio v;
	struct device own;
	struct disk_hw hw;
	struct disk_config config;
	struct block *block;
	char serial[SERIAL_LENGTH];
	struct disk_queue q[DISK_QUEUES];
};

/* ---- block.c */

/* Of a request that is not in use, malloc(); the queue's lock is held. */
struct disk_request *disk_request_get(struct disk_queue *q);
void disk_request_put(struct disk_queue *q, struct disk_request *req);
void disk_request_done(struct block_request *r, int result);
void disk_request_held(struct block_request *r, bool held);
void disk_request_submit(struct disk_request *req); /* all but req->bounce is set */

/* ---- block-save.c */

extern const struct state_desc disk_state;
/* Bytes the held requests take, or -EFAULT when one of them is in memory that is no RAM any more. The machine is paused. */
int64_t disk_held_size(struct disk *d);
void disk_held_save(struct disk *d);
void disk_held_load(struct disk *d);
void disk_held_submit(struct disk *d); /* what was loaded */
void disk_held_drop(struct disk_queue *q);

#endif
