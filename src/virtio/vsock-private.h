/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the socket device: vsock.c is what the guest sees (queues, packets, credit), vsock-conn.c the UNIX sockets.
 * Everything here belongs to the event loop's thread alone.
 */
#ifndef VIRTIO_VSOCK_PRIVATE_H
#define VIRTIO_VSOCK_PRIVATE_H

#include <sys/queue.h>
#include "base/evloop.h"
#include "virtio/devices.h"

#define VSOCK_HOST 2u
#define VSOCK_CONNS 512u       /* with the guest */
#define VSOCK_HELLOS 32u       /* of the host, that have not said yet what they want */
#define VSOCK_BUFFER (128u << 10) /* what the guest may send before the host's side has read it; the credit we give */
#define VSOCK_HASH 256u
#define VSOCK_RESETS 64u       /* answers to packets of no connection */
#define VSOCK_CHUNK 65536u

enum vsock_op {
	VSOCK_REQUEST = 1,
	VSOCK_RESPONSE,
	VSOCK_RST,
	VSOCK_SHUTDOWN,
	VSOCK_RW,
	VSOCK_CREDIT_UPDATE,
	VSOCK_CREDIT_REQUEST,
};
#define VSOCK_NO_RECEIVE 1u /* flags of SHUTDOWN: the sender will not do this any more */
#define VSOCK_NO_SEND 2u

struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
#define VSOCK_HEADER 44u
_Static_assert(sizeof(struct vsock_header) == VSOCK_HEADER, "virtio 1.2, 5.10.6");

enum vconn_state {
	VCONN_HELLO,	 /* a client of the host, before "CONNECT PORT" */
	VCONN_REQUESTED, /* the guest has been asked */
	VCONN_OPEN,
	VCONN_ENDING,	 /* no socket any more; a RST is to be said, or to come */
};

struct vconn {
	struct vsock *s;
	enum vconn_state state;
	uint32_t guest_port, host_port;
	int fd;
	struct evsource *source;
	LIST_ENTRY(vconn) link;	    /* of its hash bucket, or of the hellos */
	TAILQ_ENTRY(vconn) in_turn; /* while it has something for the guest */
	bool queued;
	uint32_t say;	   /* packets to be sent, a bit for each op */
	uint32_t say_shut; /* flags for SHUTDOWN, and */
	uint32_t said_shut;
	bool readable, eof, hung_up;
	uint32_t guest_shut;
	uint32_t peer_alloc, peer_fwd, sent;   /* credit the guest gives */
	uint32_t forwarded, forwarded_told;    /* credit we give */
	uint8_t *buffer; /* of VSOCK_BUFFER: from the guest, not yet taken by the socket */
	uint32_t first, used;
};

LIST_HEAD(vconn_list, vconn);
TAILQ_HEAD(vconn_turns, vconn);

struct vsock_hw {
	bool announce; /* the driver has to be told that all connections are gone */
};

struct vsock {
	struct virtio v;
	struct device own;
	struct vsock_hw hw; /* under the event queue's lock */
	uint64_t cid;	    /* little endian, the configuration space */
	char *path;
	int listener;
	struct evsource *listening;
	_Atomic bool posted, drop; /* drop: the driver has reset the device; every connection is gone */
	struct vconn_list bucket[VSOCK_HASH], hellos;
	struct vconn_turns turns;
	unsigned nconns, nhellos;
	uint32_t next_port;
	struct {
		uint32_t guest_port, host_port;
	} reset[VSOCK_RESETS];
	unsigned nresets;
	bool stalled; /* packets wait until resets are through */
	struct vq_chain in, out;
	uint8_t data[VSOCK_CHUNK];
};

/* ---- vsock-conn.c */

struct vconn *vconn_find(struct vsock *s, uint32_t guest_port, uint32_t host_port);
/* The guest wants PATH_PORT; NULL: nobody is there. */
struct vconn *vconn_connect(struct vsock *s, uint32_t guest_port, uint32_t host_port);
void vconn_accept(void *opaque, uint32_t events); /* of the listener; opaque: the vsock */
void vconn_say(struct vconn *c, enum vsock_op op);
void vconn_opened(struct vconn *c);			      /* the guest has agreed */
bool vconn_deliver(struct vconn *c, uint64_t offset, uint32_t len); /* from s->out; false: more than it was allowed */
void vconn_shut(struct vconn *c, uint32_t flags);	      /* by the guest */
size_t vconn_read(struct vconn *c, void *buf, size_t len);  /* for the guest; 0: nothing now */
uint32_t vconn_credit(const struct vconn *c);
bool vconn_has_data(const struct vconn *c);
void vconn_wake(struct vconn *c); /* it may have something for the guest: give it its turn */
void vconn_reset(struct vconn *c); /* the guest is told by RST, then it is gone */
void vconn_free(struct vconn *c);
void vconn_free_all(struct vsock *s);

/* ---- vsock.c */

void vsock_packet(struct vsock *s); /* in s->out, from the guest; also for the fuzzer */
void vsock_talk(struct vsock *s); /* give the guest what there is for it */

#endif
