/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the shared folder: fs.c takes requests from the queues, fs-node.c knows which file a number of the guest's stands
 * for, fs-name.c and fs-file.c carry out what the guest asks for. All but the queues belongs to the worker's thread alone, or to
 * who made it rest.
 *
 * Nothing leaves the folder: a request names a file by a number we gave out and one name without '/', "." and ".." that is opened as a
 * place (O_PATH) without following links. Links are read for the guest, and followed by the guest only. What
 * needs more than a place is opened through /proc/self/fd, which gives that very file, and only if it is a plain file or a
 * folder.
 */
#ifndef VIRTIO_FS_PRIVATE_H
#define VIRTIO_FS_PRIVATE_H

#include <linux/fuse.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include "virtio/devices.h"

#define FS_TAG 36
#define FS_NODES 65536u	   /* files the guest may know at once */
#define FS_PLACES 2048u	   /* of them with a descriptor; the others are opened again when needed */
#define FS_HANDLES 4096u   /* files and folders it may have open at once */
#define FS_HASH 4096u
#define FS_ARGS (72u << 10) /* a request without the data of a write; an attribute has up to 64 KiB */
#define FS_DATA (1u << 20)
#define FS_VALID_SECONDS 1 /* the guest may believe what it was told for so long */

struct fs_node {
	uint64_t id; /* slot + 1, generation in the upper half; the root's is 1 */
	uint64_t lookups; /* of the guest: not yet forgotten */
	unsigned handles, children;
	int place; /* descriptor; -1: none at the moment */
	mode_t type;
	dev_t dev;
	ino_t ino;
	struct fs_node *parent; /* with the name: where it was found last */
	char *name;
	bool hashed;
	LIST_ENTRY(fs_node) same; /* of its hash bucket */
	TAILQ_ENTRY(fs_node) use; /* those with a place, the one used last at the end; not the root */
};

struct fs_handle {
	int fd; /* -1: free */
	struct fs_node *node;
	uint32_t flags;
};

LIST_HEAD(fs_bucket, fs_node);
TAILQ_HEAD(fs_places, fs_node);

struct fs_config {
	char tag[FS_TAG];
	uint32_t queues;
} __attribute__((packed));

/* What is saved beside the registers, filled and used by fs-save.c. */
struct fs_hw {
	bool ready;
	uint32_t nodes, handles, used;
	uint8_t session[256u << 10];
};

struct fs {
	struct virtio v;
	struct device own;
	struct fs_hw hw;
	struct fs_config config;
	char *path;
	bool read_only;
	bool mapped; /* we are not root: who a file belongs to is kept beside it, our own files are the guest root's */
	uid_t uid;
	gid_t gid;
	int proc; /* /proc/self/fd */

	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* wanted, busy, stop */
	pthread_cond_t changed;
	bool wanted, busy, stop;

	/* the worker's */
	bool ready; /* FUSE_INIT was done */
	struct fs_node root;
	struct fs_node **slot; /* FS_NODES of them; [0] is the root */
	uint32_t *generation, *free_slots;
	unsigned nfree, nplaces;
	struct fs_bucket bucket[FS_HASH];
	struct fs_places places;
	struct fs_handle handle[FS_HANDLES];
	unsigned next_handle, nhandles;
	struct vq_chain chain;
	uint8_t args[FS_ARGS], data[FS_DATA];
};

/* One request. Arguments in fs->args, the answer in fs->data. */
struct fs_request {
	struct fs *fs;
	struct virtqueue *vq;
	struct fuse_in_header h;
	struct fs_node *node; /* h.nodeid's; kept from going meanwhile */
	uint32_t args;	      /* bytes of them */
	uint32_t room;	      /* for the answer */
	uint32_t answer;      /* bytes of it in fs->data */
	uint32_t direct;      /* or put into the guest's memory already */
};

/* ---- fs.c */

uint32_t fs_serve(struct fs *fs, struct virtqueue *vq); /* fs->chain; also for the fuzzer, while the worker rests */

/* ---- fs-node.c */

void fs_nodes_init(struct fs *fs);
void fs_forget_all(struct fs *fs); /* and closes everything but the root */
struct fs_node *fs_node_find(struct fs *fs, uint64_t id);
int fs_node_place(struct fs *fs, struct fs_node *n); /* its descriptor, for now; -errno */
int fs_node_lookup(struct fs *fs, struct fs_node *parent, const char *name, struct fs_node **out, struct stat *st);
/* The one of this file, if the guest knows it. */
struct fs_node *fs_node_known(struct fs *fs, const struct stat *st);
void fs_node_moved(struct fs *fs, struct fs_node *n, struct fs_node *parent, const char *name);
void fs_node_forget(struct fs *fs, struct fs_node *n, uint64_t lookups);
/* A descriptor for work; O_CLOEXEC is added. -errno; -EACCES for what is neither a file nor a folder. */
int fs_node_open(struct fs *fs, struct fs_node *n, int flags);
struct fs_handle *fs_handle_find(struct fs *fs, uint64_t fh, const struct fs_node *n);
int fs_handle_make(struct fs *fs, struct fs_node *n, int fd, uint32_t flags, uint64_t *fh); /* takes fd */
void fs_handle_close(struct fs *fs, struct fs_handle *h);

/* For restored machines: NULL: impossible. Its file is not known yet: it is stale until fs_node_is. */
struct fs_node *fs_node_restore(struct fs *fs, uint64_t id, mode_t type, struct fs_node *parent, const char *name);
void fs_node_is(struct fs *fs, struct fs_node *n, const struct stat *st);
void fs_handle_restore(struct fs *fs, struct fs_node *n, int fd, uint32_t flags, unsigned at);

/* ---- fs-save.c */

uint64_t fs_session_size(const struct fs *fs); /* bytes of fs_hw.session it takes */
void fs_session_save(struct fs *fs);
void fs_session_load(struct fs *fs);

/* ---- fs-name.c: names and attributes */

int fs_lookup(struct fs_request *r);
int fs_getattr(struct fs_request *r);
int fs_setattr(struct fs_request *r);
int fs_readlink(struct fs_request *r);
int fs_symlink(struct fs_request *r);
int fs_mknod(struct fs_request *r);
int fs_mkdir(struct fs_request *r);
int fs_unlink(struct fs_request *r);
int fs_rmdir(struct fs_request *r);
int fs_rename(struct fs_request *r);
int fs_rename2(struct fs_request *r);
int fs_link(struct fs_request *r);
int fs_create(struct fs_request *r);
int fs_statfs(struct fs_request *r);
int fs_setxattr(struct fs_request *r);
int fs_getxattr(struct fs_request *r);
int fs_listxattr(struct fs_request *r);
int fs_removexattr(struct fs_request *r);
void fs_attr(struct fs *fs, struct fs_node *n, const struct stat *st, struct fuse_attr *a);
/* A file name at `at` of the arguments, checked; NULL: none. *end: behind its zero. */
bool fs_name_valid(const char *name, size_t len);
const char *fs_name(const struct fs_request *r, uint32_t at, uint32_t *end);
void fs_entry(struct fs_request *r, struct fs_node *n, const struct stat *st, struct fuse_entry_out *e);

/* ---- fs-file.c: what is in files and folders */

int fs_open(struct fs_request *r);
int fs_opendir(struct fs_request *r);
int fs_release(struct fs_request *r);
int fs_read(struct fs_request *r);
int fs_write(struct fs_request *r);
int fs_flush(struct fs_request *r);
int fs_fsync(struct fs_request *r);
int fs_readdir(struct fs_request *r);
int fs_lseek(struct fs_request *r);
int fs_fallocate(struct fs_request *r);
int fs_copy(struct fs_request *r);

/* The arguments as a struct the table says they are large enough for. */
#define FS_ARG(r, type) ((const struct type *)(const void *)(r)->fs->args)
void *fs_answer(struct fs_request *r, uint32_t size); /* zeroed */

#endif
