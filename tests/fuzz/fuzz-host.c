/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest can ask of the host through its devices: requests to a shared folder, packets of sockets; and what is saved of a
 * shared folder. The first byte chooses; then come requests, each with a byte of length. Nothing may crash, and nothing outside the folder may be read or changed: beside it lie
 * a file whose contents no answer may have, and links that lead there.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/err.h"
#include "virtio/fs-private.h"
#include "virtio/vsock-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (1u << 20)
#define ROOM 8192u
#define PORTS 3
#define CLEAN_EVERY 64

static const char secret[] = "what no guest may ever see";

struct rig {
	struct device_env env;
	struct fs *fs;
	struct vsock *vsock;
	char folder[64];
	int listener[PORTS];
	unsigned runs;
};

static void write_file(const char *folder, const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return f->level ? remove(path) : 0;
}

/* The folder as every few inputs find it. */
static void plant(struct rig *r)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/shared", r->folder);
	nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	write_file(path, "a", "the guest's");
	snprintf(path, sizeof(path), "%s/shared/d", r->folder);
	CHECK(!mkdir(path, 0700));
	write_file(path, "b", "the guest's too");
	snprintf(path, sizeof(path), "%s/shared/out", r->folder);
	CHECK(!symlink("../secret", path));
	snprintf(path, sizeof(path), "%s/shared/up", r->folder);
	CHECK(!symlink("..", path));
}

static void rig_open(struct rig *r)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };
	struct virtio_vsock_config vsock = { .cid = 3 };
	struct virtio_fs_config fs = { .tag = "fuzz" };
	char path[80], socket_path[80];
	struct err e;

	signal(SIGXFSZ, SIG_IGN);
	strcpy(r->folder, "/tmp/fuzz-host-XXXXXX");
	CHECK(mkdtemp(r->folder));
	write_file(r->folder, "secret", secret);
	snprintf(path, sizeof(path), "%s/shared", r->folder);
	CHECK(!mkdir(path, 0700));
	r->env.mem = mem_create(RAM, &e);
	r->env.clock = clock_create_manual();
	r->env.loop = evloop_create(&e); /* never started: this thread is the only one */
	CHECK(r->env.mem && r->env.loop && !mem_map_ram(r->env.mem, 0, 0, RAM, "ram", &e));
	setrlimit(RLIMIT_FSIZE, &limit); /* the guest's memory is a file too, made before */
	fs.path = path;
	r->fs = container_of(virtio_fs_create(&r->env, 0, &fs, &e), struct fs, v);
	snprintf(socket_path, sizeof(socket_path), "%s/sock", r->folder);
	vsock.path = socket_path;
	r->vsock = container_of(virtio_vsock_create(&r->env, 1, &vsock, &e), struct vsock, v);
	for (unsigned i = 0; i < PORTS; i++) {
		struct sockaddr_un at = { .sun_family = AF_UNIX };

		snprintf(at.sun_path, sizeof(at.sun_path), "%s_%u", socket_path, i);
		r->listener[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		CHECK(r->listener[i] >= 0 && !bind(r->listener[i], (struct sockaddr *)&at, sizeof(at)) &&
		      !listen(r->listener[i], 8));
	}
}

static void rig_close(struct rig *r)
{
	nftw(r->folder, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	rmdir(r->folder);
}

static struct rig the_rig;

static void at_end(void)
{
	rig_close(&the_rig);
}

/* A request of these bytes, and room for an answer, as a chain of four pieces. */
static void chain_fill(struct rig *r, struct vq_chain *c, const uint8_t *data, size_t len)
{
	uint8_t *ram = mem_ram_base(r->env.mem);
	size_t first = len / 2;

	memcpy(ram, data, len);
	memset(ram + ROOM, 0, 2 * ROOM);
	*c = (struct vq_chain){ .nout = 2, .nin = 2, .out_len = len, .in_len = ROOM };
	c->iov[0] = (struct iovec){ ram, first };
	c->iov[1] = (struct iovec){ ram + first, len - first };
	c->iov[2] = (struct iovec){ ram + ROOM, 24 };
	c->iov[3] = (struct iovec){ ram + 2 * ROOM, ROOM - 24 };
}

static void fs_request(struct rig *r, const uint8_t *data, size_t len)
{
	static const uint8_t init[sizeof(struct fuse_init_in)] = { 7, 0, 0, 0, 31 };
	struct fuse_in_header h = { .opcode = data[0] % 52, .nodeid = data[1], .len = (uint32_t)(len + sizeof(h)) };
	uint8_t request[sizeof(h) + 256];
	uint32_t n;

	if (!r->fs->ready) {
		h.opcode = FUSE_INIT;
		memcpy(request + sizeof(h), init, sizeof(init));
		len = sizeof(init) + 2;
	} else {
		memcpy(request + sizeof(h), data + 2, len - 2);
	}
	memcpy(request, &h, sizeof(h));
	chain_fill(r, &r->fs->chain, request, sizeof(h) + len - 2);
	n = fs_serve(r->fs, &r->fs->v.queue[1]);
	CHECK(n <= ROOM);
	CHECK(!memmem(mem_ram_base(r->env.mem) + ROOM, 2 * ROOM, secret, sizeof(secret) - 1));
}

static void vsock_request(struct rig *r, const uint8_t *data, size_t len)
{
	struct vsock_header h = { .src_cid = 3, .dst_cid = 2, .type = 1, .op = data[0] % 9, .src_port = data[1] & 7,
				  .dst_port = data[1] >> 3 & 3, .len = (uint32_t)len - 2, .buf_alloc = 4096 };
	uint8_t request[VSOCK_HEADER + 256];

	memcpy(request, &h, VSOCK_HEADER);
	memcpy(request + VSOCK_HEADER, data + 2, len - 2);
	if (data[1] & 0x80 && len - 2 >= 12) /* any flags and credit */
		memcpy(request + VSOCK_HEADER - 12, data + 2, 12);
	if (data[1] & 0x40 && len > 2)
		h.len = data[2] * 1000u;
	chain_fill(r, &r->vsock->out, request, VSOCK_HEADER + len - 2);
	vsock_packet(r->vsock);
	vsock_talk(r->vsock);
	CHECK(r->vsock->nconns <= VSOCK_CONNS && r->vsock->nresets <= VSOCK_RESETS);
}

/* A saved session: of a machine that is restored, so perhaps nobody's. */
static void session(struct rig *r, const uint8_t *data, size_t size)
{
	struct fs_hw *hw = &r->fs->hw;

	*hw = (struct fs_hw){ .ready = true, .nodes = data[0], .handles = data[1], .used = (uint32_t)(size - 2) + (data[0] & 1) };
	memcpy(hw->session, data + 2, size - 2);
	fs_session_load(r->fs);
	if (fs_session_size(r->fs) <= sizeof(hw->session))
		fs_session_save(r->fs);
	fs_forget_all(r->fs);
	memset(r->fs->generation, 0, FS_NODES * sizeof(*r->fs->generation));
	fs_nodes_init(r->fs);
}

static void end_of_run(struct rig *r)
{
	char text[sizeof(secret)] = "", path[80];
	int fd;

	fs_forget_all(r->fs);
	r->fs->ready = false;
	CHECK(r->fs->nfree == FS_NODES - 1 && !r->fs->nplaces);
	/* the same numbers for the next input, which cannot get through more of them */
	for (unsigned i = 0; i < 8192; i++) {
		r->fs->generation[i] = 0;
		r->fs->free_slots[FS_NODES - 2 - i] = i + 1;
	}
	r->fs->next_handle = 0;
	vconn_free_all(r->vsock);
	r->vsock->nresets = 0;
	for (unsigned i = 0; i < PORTS; i++)
		for (int peer; (peer = accept(r->listener[i], NULL, NULL)) >= 0;)
			close(peer);
	snprintf(path, sizeof(path), "%s/secret", r->folder);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof(text)) == sizeof(secret) - 1 && !memcmp(text, secret, sizeof(secret) - 1));
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig *r = &the_rig;
	bool sockets = size && data[0] & 1;

	if (size > 4096)
		return -1;

	if (!r->fs) {
		rig_open(r);
		atexit(at_end);
	}
	if (r->runs++ % CLEAN_EVERY == 0)
		plant(r);
	if (!sockets && size > 3 && data[0] & 2) {
		session(r, data + 1, size - 1);
		size = 0;
	}
	for (size_t at = 1; at + 3 <= size;) {
		size_t len = 2 + MIN((size_t)data[at], size - at - 3);

		if (sockets)
			vsock_request(r, data + at + 1, len);
		else
			fs_request(r, data + at + 1, len);
		at += 1 + len;
	}
	end_of_run(r);
	return 0;
}
