/* SPDX-License-Identifier: Apache-2.0 */
/* What the other side of an NBD connection says: first byte even, a client to our server; odd, a server to our client's handshake. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backend/nbd.h"

#define SIZE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
	struct node n;
	uint8_t bytes[SIZE];
};

static int memory_sync(struct node *n, struct block_request *r)
{
	struct memory *m = container_of(n, struct memory, n);

	if (r->op == BLOCK_READ)
		iov_from_buf(r->iov, r->iovcnt, 0, m->bytes + r->offset, r->length);
	else if (r->op == BLOCK_WRITE)
		iov_to_buf(r->iov, r->iovcnt, 0, m->bytes + r->offset, r->length);
	return 0;
}

static void memory_submit(struct node *n, struct block_request *r)
{
	r->done(r, memory_sync(n, r));
}

static void memory_close(struct node *n)
{
}

static const struct node_ops memory_ops = { .name = "memory", .submit = memory_submit, .sync = memory_sync, .close = memory_close };
static struct memory memory = { .n = { .ops = &memory_ops, .size = SIZE, .align = 1 } };

static void *discard_replies(void *opaque)
{
	static uint8_t buf[65536];

	while (recv(*(int *)opaque, buf, sizeof(buf), 0) > 0)
		;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct blk_spec s = { .path = "fuzz", .format = "raw" };
	struct nbd_server *server;
	struct block *b;
	pthread_t reader;
	int fd[2];

	if (size < 2 || size > 60000 || socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		return 0;
	if (write(fd[0], data + 1, size - 1) != (ssize_t)size - 1)
		abort();
	shutdown(fd[0], SHUT_WR);
	if (data[0] & 1) {
		uint64_t disk;
		uint16_t flags;

		(void)nbd_negotiate(fd[1], "name", &disk, &flags, NULL);
		close(fd[1]);
		close(fd[0]);
		return 0;
	}
	memory.n.aio = aio_create(false, NULL);
	if (block_wrap(&b, memory.n.aio, &memory.n, &s, NULL))
		abort();
	server = nbd_server_create_quiet(b, "", data[0] & 2);
	if (pthread_create(&reader, NULL, discard_replies, &fd[0]))
		abort();
	nbd_serve(server, fd[1]);
	pthread_join(reader, NULL);
	close(fd[0]);
	nbd_server_destroy(server);
	block_close(b);
	return 0;
}
