/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network block devices: the fixed newstyle protocol with simple replies, as in the NBD project's doc/proto.md. Addresses: "unix:PATH[:EXPORT]",
 * "tcp:HOST:PORT[:EXPORT]".
 */
#ifndef BACKEND_NBD_H
#define BACKEND_NBD_H

#include <endian.h>
#include "backend/blk.h"

#define NBD_MAGIC 0x4e42444d41474943ull
#define NBD_OPTS 0x49484156454f5054ull
#define NBD_REPLY_OPTS 0x3e889045565a9ull
#define NBD_REQUEST 0x25609513u
#define NBD_REPLY 0x67446698u
#define NBD_DATA_MAX (32u << 20)
#define NBD_NAME_MAX 4096u

enum { NBD_FIXED = 1, NBD_NO_ZEROES = 2 };
enum { NBD_OPT_EXPORT = 1, NBD_OPT_ABORT = 2, NBD_OPT_LIST = 3, NBD_OPT_INFO = 6, NBD_OPT_GO = 7 };
enum { NBD_REP_ACK = 1, NBD_REP_SERVER = 2, NBD_REP_INFO = 3 };
#define NBD_REP_ERR (1u << 31)
enum { NBD_ERR_UNSUP = 1, NBD_ERR_POLICY = 2, NBD_ERR_INVALID = 3, NBD_ERR_TLS = 5, NBD_ERR_UNKNOWN = 6, NBD_ERR_TOO_BIG = 9 };
enum { NBD_INFO_EXPORT = 0, NBD_INFO_BLOCK = 3 };
enum { NBD_HAS_FLAGS = 1, NBD_READ_ONLY = 2, NBD_FLUSH = 4, NBD_FUA = 8, NBD_TRIM = 32, NBD_ZEROES = 64, NBD_MULTI = 256 };
enum { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_ZEROES };
enum { NBD_CMD_FUA = 1, NBD_CMD_NO_HOLE = 2 };

struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));

struct nbd_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd_option {
	uint64_t magic;
	uint32_t option, length;
} __attribute__((packed));

struct nbd_option_reply {
	uint64_t magic;
	uint32_t option, type, length;
} __attribute__((packed));

/* ---- nbd-wire.c */
struct nbd_address {
	bool tcp;
	char path[BLK_PATH], port[16], name[256]; /* path: of the socket, or the host's name */
};
int nbd_address_parse(struct nbd_address *a, const char *text, struct err *e);
int nbd_connect(const struct nbd_address *a, struct err *e); /* a socket or -errno */
int nbd_listen(const struct nbd_address *a, struct err *e);
/* All of it: 0, or -errno (-EPIPE: the other side is gone). */
int nbd_read(int fd, void *buf, size_t n);
int nbd_write(int fd, const struct iovec *iov, unsigned n); /* up to 1024 */
int nbd_skip(int fd, uint64_t n);
int nbd_error_to_host(uint32_t error); /* -errno */
uint32_t nbd_error_from_host(int error);

/* ---- nbd-client.c */
int nbd_open(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e);
/* The client's half of the handshake. */
int nbd_negotiate(int fd, const char *name, uint64_t *size, uint16_t *flags, struct err *e);

/* ---- nbd-server.c */
struct nbd_server;
struct nbd_server *nbd_server_create(struct block *b, const char *listen, const char *name, bool read_only, struct err *e);
void nbd_server_destroy(struct nbd_server *s); /* ends its connections; the block stays open */
/* One connection, on this thread, until it ends; takes fd. For tests. */
void nbd_serve(struct nbd_server *s, int fd);
struct nbd_server *nbd_server_create_quiet(struct block *b, const char *name, bool read_only); /* listens nowhere */

#endif
