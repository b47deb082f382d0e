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

/* Console (port 0, if it is one) and ports that the guest finds by name. */
#define VIRTIO_PORTS 8
struct virtio_port_config {
	struct chr *chr; /* the caller's, until the device is gone */
	const char *name; /* NULL: none */
	bool console;
};
struct virtio *virtio_console_create(const struct device_env *env, unsigned instance, const struct virtio_port_config *ports,
				     unsigned n, struct err *e);
bool virtio_console_is_open(struct virtio *v, const char *name); /* a program of the guest has this port open */

/*
 * Stream sockets between the guest and UNIX sockets of the host: what the guest connects to port P of CID 2 goes to PATH_P; a client
 * of PATH writes "CONNECT P\n" and is answered "OK N\n" once the guest has accepted. Works on the event loop.
 */
#define VSOCK_CID_USUAL 3u
struct virtio_vsock_config {
	const char *path;
	uint32_t cid; /* of the guest: 3 and more */
};
struct virtio *virtio_vsock_create(const struct device_env *env, unsigned instance, const struct virtio_vsock_config *c,
				   struct err *e);

/* A folder of the host; the guest: mount -t virtiofs TAG /mnt. */
#define VIRTIO_FS_TAG 36
struct virtio_fs_config {
	const char *path, *tag; /* up to VIRTIO_FS_TAG bytes */
	bool read_only;
};
struct virtio *virtio_fs_create(const struct device_env *env, unsigned instance, const struct virtio_fs_config *c, struct err *e);

/* Memory at `start`, which the board has filled, for the guest's nd_pmem; read-only. */
struct virtio *virtio_pmem_create(const struct device_env *env, unsigned instance, uint64_t start, uint64_t size, struct err *e);

/* A keyboard, or a tablet: a pointer with a position. */
struct key_event;
enum virtio_input_kind { VIRTIO_KEYBOARD, VIRTIO_TABLET };
#define VIRTIO_INPUT_RANGE 0x7fffu
struct virtio *virtio_input_create(const struct device_env *env, unsigned instance, enum virtio_input_kind kind, struct err *e);
/* Any thread. False: not of that kind, or the guest has no driver for it (yet). code: KEY_* of <linux/input-event-codes.h> */
bool virtio_input_key(struct virtio *v, unsigned code, bool down);
/* All of these or none: 0, -ENODEV (no driver), -EAGAIN (no room as yet), -EINVAL (no such key), -E2BIG. */
int virtio_input_keys(struct virtio *v, const struct key_event *stroke, unsigned n);
/* x, y: 0 to VIRTIO_INPUT_RANGE; wheel: down positive; buttons: 1 left, 2 right, 4 middle, 8 side, 16 extra, as they are now */
bool virtio_input_position(struct virtio *v, unsigned x, unsigned y, int wheel, unsigned buttons);

/* A network card; `link` is the caller's until the device is gone. */
struct net_link;
struct virtio_net_config {
	struct net_link *link;
	unsigned pairs; /* of queues, 1 to 8 */
};
struct virtio *virtio_net_create(const struct device_env *env, unsigned instance, const struct virtio_net_config *c,
				 struct err *e);

/* Balloon, with the guest's statistics, and pages it reports as free given back at once. */
struct virtio *virtio_balloon_create(const struct device_env *env, unsigned instance, struct err *e);
struct virtio_balloon_info {
	uint64_t target, actual; /* bytes the guest is to give, and has given */
	uint64_t given_back;     /* bytes so far, reported ones too */
	bool has[16];
	uint64_t stat[16]; /* by the tags of virtio 1.2, 5.5.6.3; as of the last answer */
};
void virtio_balloon_set(struct virtio *v, uint64_t bytes); /* any thread */
/*
 * When the guest gives more or less than before: on the event loop, v->lock held, at most once a second of the guest's. NULL: no
 * more.
 */
void virtio_balloon_on_change(struct virtio *v, void (*changed)(void *opaque, uint64_t actual), void *opaque);
void virtio_balloon_get(struct virtio *v, struct virtio_balloon_info *info); /* asks for newer statistics as well */

#endif
